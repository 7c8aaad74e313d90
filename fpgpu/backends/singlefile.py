"""A kernel source with everything it includes, as one text."""

import re
from collections.abc import Mapping

from fpgpu.backends.compiler import read_sources
from fpgpu.errors import KernelCompileError

__all__ = ["single_file"]

_INCLUDE = re.compile(r'^\s*#include\s+"([^"]+)"[^\n]*$', re.MULTILINE)


def single_file(name: str, sources: Mapping[str, str] | None = None) -> str:
    """Put the text of every included file in the place of its include.

    CuPy's cache of machine code looks at the text it is given and at nothing that text includes, so
    the text must have it all; and no folder of headers has to exist, as in a zipped package.

    Parameters
    ----------
    name : str
        File name of a kernel source, as ``"unpack.cu"``.
    sources : mapping of str to str, optional
        Text by file name instead of what `fpgpu.backends.compiler.read_sources` returns.

    Returns
    -------
    str
        CUDA C++ without includes; ``#line`` says where each part is from.

    Raises
    ------
    KernelCompileError
        When a file is not there.
    """
    files = read_sources() if sources is None else sources
    seen: set[str] = set()

    def expand(file: str, asked_by: str) -> str:
        if file not in files:
            known = ", ".join(sorted(files))
            raise KernelCompileError(f"{asked_by} needs {file!r}, which is not among {known}")
        if file in seen:
            return ""
        seen.add(file)
        lines = [f'#line 1 "{file}"']
        for number, line in enumerate(files[file].splitlines(), 1):
            include = _INCLUDE.match(line)
            if include:
                lines += [expand(include[1], file), f'#line {number + 1} "{file}"']
            else:
                lines.append(line)
        return "\n".join(lines)

    return expand(name, "the backend") + "\n"
