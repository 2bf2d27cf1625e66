"""See which of two moving digits a video predictor follows: `ssm-jax video`."""

from ssm_jax.commands import main

if __name__ == "__main__":
    main("video")
