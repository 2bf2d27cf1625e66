"""The Long Range Arena: its tasks, variants of the layers, published numbers and report."""
