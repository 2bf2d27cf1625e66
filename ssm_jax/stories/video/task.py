"""Video prediction: the loss of the next frame, and how well a roll-out follows each digit."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ssm_jax.kernels import sobolev_gain
from ssm_jax.kernels.devices import of_rows
from ssm_jax.options.arguments import arguments_of
from ssm_jax.stories.video.data import COLOURS, WINDOW, MovingDigits, Scene
from ssm_jax.stories.video.model import VideoPredictor
from ssm_jax.tasks import Batch, Sums
from ssm_jax.tasks.metrics import masked_sums

PEAK = 2.0  # from black to white
# Of SSIM (Wang et al. 2004): its Gaussian window of WINDOW pixels, and the constants of its terms
SIGMA, K1, K2 = 1.5, 0.01, 0.03


def build_predictor(
    dataset: MovingDigits, options: Mapping[str, Any], rngs: nnx.Rngs
) -> VideoPredictor:
    own = arguments_of(VideoPredictor, options, "video")
    # A record of the run has the scene as a plain tuple.
    return VideoPredictor(scene=Scene(*dataset.scene), **own, rngs=rngs)


def frame_loss(error_BTYXC: Array, l1: float = 0.5, beta: float = 0.0, unit: str = "lra") -> Array:
    """(1 - l1) e^2 + l1 |e| of each video: summed over columns and channels, mean over time and
    rows. The published network has l1 = 0.5.

    With beta, which is ours and in no paper, e is first filtered over time by (1 + |s|)^beta, as a
    layer's output is: beta > 0 weighs what changes fast.
    """
    if beta:
        T = error_BTYXC.shape[1]
        gain_F = sobolev_gain(jnp.full(1, beta, error_BTYXC.dtype), 2 * T, unit)[0]
        e_BYXCT = jnp.moveaxis(error_BTYXC, 1, -1)
        E_BYXCF = of_rows(jnp.fft.rfft, e_BYXCT, 2 * T) * gain_F[None, None, None, None]
        error_BTYXC = jnp.moveaxis(of_rows(jnp.fft.irfft, E_BYXCF, 2 * T)[..., :T], -1, 1)
    each = (1 - l1) * jnp.square(error_BTYXC) + l1 * jnp.abs(error_BTYXC)
    return jnp.mean(jnp.sum(each, axis=(3, 4)), axis=(1, 2))


def train_sums(model: VideoPredictor, batch: Batch, key: Array | None) -> Sums:
    """Loss and forced_mse, the squared error of each frame of a training video but the first, given
    the true ones before it (teacher forcing)."""
    del key  # there is no dropout
    found = _forced(model, _frames(model.scene, batch, model.scene.train_frames), model.loss_beta)
    return masked_sums({name: found[name] for name in ("loss", "forced_mse")}, batch)


def _forced(model: VideoPredictor, frames: Array, loss_beta: float) -> dict[str, Array]:
    """Of each video the loss, and forced_mse with its colours, of frames that are not clipped.

    They are predictions with a filter too: `ConvS5` projects its kernels on past frames, which is
    ours and in no paper.
    """
    predicted, truth = model(frames[:, :-1]), frames[:, 1:]
    loss_B = frame_loss(predicted - truth, model.l1, loss_beta, model.beta_unit)
    found = errors(model.scene, predicted, truth)
    return {"loss": loss_B} | {f"forced_{name}": mse_B for name, mse_B in found.items()}


def eval_sums(model: VideoPredictor, batch: Batch) -> Sums:
    """The loss as in training without its beta, and

    forced_mse, forced_mse_COLOUR: as in training;
    mse, mse_COLOUR, psnr, ssim: of the frames of a roll-out after the context. A model with a
      filter, which cannot roll out, has none of them.

    Errors are per pixel in units of full white; PSNR in dB and SSIM, mean over frames. A colour is
    that of a digit.
    """
    scene: Scene = model.scene
    whole = _frames(scene, batch, scene.frames)
    means = _forced(model, whole[:, : scene.train_frames], 0.0)
    if model.rolls_out:
        predicted = model.roll_out(whole[:, : scene.context], scene.horizon)
        truth = whole[:, scene.context :][:, : scene.horizon]
        means |= errors(scene, predicted, truth)
        by_frame_BT = jnp.mean(jnp.square(predicted - truth), axis=(2, 3, 4))
        psnr_BT = 10 * jnp.log10(PEAK**2 / jnp.maximum(by_frame_BT, 1e-10))
        means["psnr"] = jnp.mean(psnr_BT, axis=1)
        means["ssim"] = jnp.mean(ssim(predicted, truth), axis=1)
    return masked_sums(means, batch)


def errors(scene: Scene, predicted: Array, truth: Array) -> dict[str, Array]:
    """Squared error of each video, and that in each digit's colour, in units of full white."""
    square_BC = jnp.mean(jnp.square((predicted - truth) / PEAK), axis=(1, 2, 3))
    found = {"mse": jnp.mean(square_BC, axis=1)}
    if scene.colours == 3:
        found |= {f"mse_{COLOURS[c]}": square_BC[:, c] for c in dict.fromkeys(scene.channels)}
    return found


def ssim(x_BTYXC: Array, y_BTYXC: Array) -> Array:
    """Structural similarity of frames in -1..1, (B, T): mean over channels, and over the places
    where the whole window is inside the frame."""
    offset = np.arange(WINDOW) - WINDOW // 2
    bell = np.exp(-(offset**2) / (2 * SIGMA**2))
    weight = jnp.asarray(bell / bell.sum(), x_BTYXC.dtype)

    def mean(z: Array) -> Array:
        """Over the window around each place, along rows, then columns."""
        for axis in (2, 3):
            n = z.shape[axis] - WINDOW + 1
            parts = [jnp.take(z, jnp.arange(i, i + n), axis) * weight[i] for i in range(WINDOW)]
            z = sum(parts[1:], parts[0])
        return z

    mean_x, mean_y = mean(x_BTYXC), mean(y_BTYXC)
    var_x = mean(x_BTYXC**2) - mean_x**2
    var_y = mean(y_BTYXC**2) - mean_y**2
    covariance = mean(x_BTYXC * y_BTYXC) - mean_x * mean_y
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return jnp.mean(luminance * structure, axis=(2, 3, 4))


def summary(sums: Mapping[str, Any], dataset: MovingDigits) -> dict[str, Any]:
    """Means over videos, and how much larger the error of the fast digit is than that of the slow
    one: ratio of the roll-out, forced_ratio of the next frame."""
    found = {name: total / sums["count"] for name, total in sums.items() if name != "count"}
    scene = dataset.scene
    if scene.colours == 3 and len(scene.speeds) == 2:
        fast, slow = sorted(range(2), key=lambda i: -scene.speeds[i])
        names = [f"mse_{COLOURS[scene.channels[i]]}" for i in (fast, slow)]
        for start in ("", "forced_"):
            if all(start + name in found for name in names):
                over, under = (found[start + name] for name in names)
                found[f"{start}ratio"] = over / under if under else float("nan")
    return found


def _frames(scene: Scene, batch: Batch, frames: int) -> Array:
    return scene.draw(batch["inputs"], batch["places"][:, :, :frames])
