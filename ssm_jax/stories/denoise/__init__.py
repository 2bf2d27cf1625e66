"""Image denoising: a frequency bias strengthened, weakened and reversed."""
