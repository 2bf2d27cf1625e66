"""The tables of README.md, made from results/."""
