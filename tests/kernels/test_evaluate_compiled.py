"""evaluate, as compiled: instructions a pixel and Gaussian, wide accesses, nothing spilt.

Counted in PTX: the loop over Gaussians that has two pixels a lane, and the loop over pixels that
has a Gaussian a lane. forcepho's kernel takes 157: 43 for the residual, 114 for derivatives.
"""

import re

import pytest

from fpgpu.backends import nvrtc
from fpgpu.errors import BackendUnavailableError
from tests.kernels.compiled import compile_once, known_architectures, most_spilled

MOST_INSTRUCTIONS = 60
BLOCKS_OF_A_MULTIPROCESSOR = 7  # __launch_bounds__ of evaluate_patch


@pytest.fixture(scope="module", autouse=True)
def needs_nvrtc() -> None:
    try:
        nvrtc.load_nvrtc()
    except BackendUnavailableError as error:
        pytest.skip(str(error))


def loops(ptx: str, kernel: str) -> list[list[str]]:
    """Innermost loops of a kernel that evaluate Gaussians, as instructions."""
    text = ptx[re.search(rf"\.entry {kernel}\(", ptx).end() :]
    lines = [line.strip() for line in text[: text.find("\n}\n")].splitlines()]
    lines = [line for line in lines if line and not line.startswith(("//", ".", "{", "}"))]
    labels = {line.split(":")[0]: n for n, line in enumerate(lines) if line.endswith(":")}
    jumps = [(n, re.search(r"\bbra(?:\.uni)?\s+(\$\w+);", line)) for n, line in enumerate(lines)]
    spans = [(labels[jump[1]], n) for n, jump in jumps if jump and labels[jump[1]] < n]
    innermost = [
        (start, stop) for start, stop in spans
        if not any(start <= a and b <= stop and (a, b) != (start, stop) for a, b in spans)
    ]  # fmt: skip
    bodies = [[x for x in lines[a : b + 1] if not x.endswith(":")] for a, b in innermost]
    return [body for body in bodies if any("ex2." in line for line in body)]


def per_pixel(ptx: str) -> dict[str, float]:
    """Instructions a pixel and Gaussian: of the residual, and of the derivatives."""
    cost = {}
    for body in loops(ptx, "evaluate_patch"):
        evaluations = sum("ex2." in line for line in body)
        reads_pixels = sum("ld.shared" in line for line in body) == evaluations
        cost["derivatives" if reads_pixels else "residual"] = len(body) / evaluations
    return cost


@pytest.mark.parametrize("arch", known_architectures())
def test_a_pixel_and_gaussian_take_at_most_60_instructions(arch: int) -> None:
    cost = per_pixel(compile_once("evaluate.cu", arch).ptx)
    assert sorted(cost) == ["derivatives", "residual"]
    assert min(cost.values()) > 10  # a count of something else
    assert sum(cost.values()) <= MOST_INSTRUCTIONS, cost


@pytest.mark.parametrize("arch", known_architectures())
def test_nothing_is_spilt_and_as_many_blocks_fit_as_was_asked(arch: int) -> None:
    compiled = compile_once("evaluate.cu", arch)
    for usage in compiled.usage.values():
        spilled = usage.spill_store_bytes, usage.spill_load_bytes, usage.stack_bytes
        assert max(spilled) <= most_spilled(arch), (arch, usage)
    assert compiled.usage["evaluate_patch"].registers * 128 * BLOCKS_OF_A_MULTIPROCESSOR <= 65536
    assert ".local" not in compiled.ptx


@pytest.mark.parametrize("arch", known_architectures())
def test_the_list_and_the_pixels_are_read_several_words_at_a_time(arch: int) -> None:
    for body in loops(compile_once("evaluate.cu", arch).ptx, "evaluate_patch"):
        reads = [line for line in body if "ld.shared" in line]
        assert reads
        assert all(re.match(r"ld\.shared\.v[24]\.f32", line) for line in reads), reads
        assert any("v4" in line for line in reads)
        assert not [line for line in body if "ld.global" in line or "div." in line]
