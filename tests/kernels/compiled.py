"""Kernels compiled once for all the tests that look at what came out."""

import functools

from fpgpu.backends.compiler import compile_source

compile_once = functools.cache(compile_source)
