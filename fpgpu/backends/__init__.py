"""Where arrays live and kernels run: sources, compiler, and references that need no device."""
