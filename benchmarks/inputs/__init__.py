"""Synthetic inputs: images, the stores of a field, the headers of an archive."""
