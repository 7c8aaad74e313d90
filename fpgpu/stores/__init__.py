"""Pixel, meta and PSF stores: forcepho's file formats, crash-safe."""
