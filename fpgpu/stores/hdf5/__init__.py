"""Changing and reading HDF5 files so that neither a crash nor damage does harm."""
