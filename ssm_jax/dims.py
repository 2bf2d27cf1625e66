"""The legend of dimension letters. An array's last suffix is its shape: `u_BLH` is (B, L, H).

| letter | stands for                                                               |
| ------ | ------------------------------------------------------------------------ |
| B      | batch: sequences in one step, over all devices                           |
| L      | length: time steps of a sequence                                         |
| M      | steps of a circle, 2L; in analysis/ columns of a signal                  |
| H      | channels (features) of a layer, `d_model`                                |
| N      | state size: complex modes kept per channel; their conjugates are implied |
| S      | sets of eigenvalues: channel h has set h mod S                           |
| C      | read-out channels of a kernel: 1, or 2 (forward and reverse)             |
| F      | frequency bins of a real FFT: n_fft // 2 + 1                             |
| K      | classes; in analysis/ bands of frequency                                 |
| Q, T   | blocks that a sequence is cut into, and steps in a block                 |
| X      | rows of one matrix product: B Q blocks, or C Q; columns of a frame       |
| Y, W   | rows of a frame; pixels across the window of a convolution               |
| J, P   | blocks of an S5 state matrix, and real states of a block or random draws |
|        | (P also oscillators, of 2P modes; modes of all pixels, Y X N)            |
| D      | digits in a video                                                        |
| R, G   | rows B L, and outputs, of the product of a gated linear unit             |
| I, O   | inputs and outputs of a system, of which a layer has R; P and Q are then |
|        | the columns of the factors of its Gramians                               |
| E      | edges of bins; evaluations of a run                                      |
| V      | tokens of a vocabulary                                                   |

A number is an axis of that size, as in y_2HL; 2N has real and imaginary parts, or modes and
conjugates. `_ri` marks an array whose last axis, of size 2, holds real and imaginary part.
The matrices A, B, C, D and the step dt keep the letters of the papers.
"""
