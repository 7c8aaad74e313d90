"""What the PSF store is made of: the layouts of its tables, and its file."""
