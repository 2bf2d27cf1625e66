"""The legend of dimension letters. An array's last suffix is its shape: `u_BLH` is (B, L, H).

| letter | stands for                                                            |
| ------ | --------------------------------------------------------------------- |
| B      | batch: sequences in one step, over all devices                        |
| L      | length: time steps of a sequence                                      |
| H      | channels (features) of a layer, `d_model`                             |
| N      | state size: complex modes kept per channel; their conjugates are implied |
| C      | read-out channels of a kernel: 1, or 2 (forward and reverse)          |
| F      | frequency bins of a real FFT: n_fft // 2 + 1                          |
| K      | classes                                                               |
| Q, T   | blocks, and steps in a block, of the two-level powers of `s4d_kernel` |

`_ri` marks an array whose last axis, of size 2, holds real and imaginary part.
The matrices A, B, C, D and the step dt keep the letters of the papers.
"""
