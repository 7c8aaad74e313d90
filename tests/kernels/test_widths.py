"""Kernels that move data do it 16 bytes at a time, in PTX and in what a GPU executes."""

import re
from collections import Counter
from pathlib import Path

import pytest

from fpgpu.backends import nvrtc
from fpgpu.backends.compiler import ARCHITECTURES
from fpgpu.errors import BackendUnavailableError
from tests.kernels.compiled import compile_once
from tests.kernels.disassembler import machine_code

# Accesses of 16 bytes in a thread's tile of 4 x 4 pixels, or of 4 pixels in `unpack`.
LOADS = {"superpixelize": 8, "images_from_superpixels": 8, "calibrate": 5 * 4, "unpack": 2}
STORES = {"superpixelize": 8, "images_from_superpixels": 8, "calibrate": 8, "unpack": 4}
NARROW_LOADS = {"calibrate": {8: 4, 4: 4}}  # masks of 2 bytes and of 1 byte a pixel


@pytest.fixture(scope="module", autouse=True)
def needs_nvrtc() -> None:
    try:
        nvrtc.load_nvrtc()
    except BackendUnavailableError as error:
        pytest.skip(str(error))


def ptx_accesses(ptx: str, kernel: str) -> Counter[tuple[str, int]]:
    """How often a kernel reads ("ld") and writes ("st") so many bytes of pixels."""
    text = ptx[re.search(rf"\.entry {kernel}\(", ptx).end() :]
    text = text[: text.find("\n}\n")]
    found: Counter[tuple[str, int]] = Counter()
    for verb, space, vector, bits in re.findall(
        r"^\s*(?:@!?%p\d+ )?(ld|st)((?:\.global(?:\.nc)?)?)((?:\.v\d)?)\.[fub](\d+)\s", text, re.M
    ):
        if verb == "st" or space != ".global.nc" or vector == ".v4":  # .nc of a word: tables
            found[verb, int(vector[2:] or 1) * int(bits) // 8] += 1
    return found


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kernel", STORES)
def test_every_access_to_pixels_is_of_16_bytes_in_ptx(kernel: str, arch: int) -> None:
    found = ptx_accesses(compile_once(f"{kernel}.cu", arch).ptx, kernel)
    assert found["st", 16] == STORES[kernel]
    assert found["ld", 16] == LOADS[kernel]
    for bytes_, count in NARROW_LOADS.get(kernel, {}).items():
        assert found["ld", bytes_] == count
    assert {width for verb, width in found if verb == "st"} == {16}


# The disassembler of CUDA 13 does not know Volta; its PTX is looked at above.
@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if arch >= 75])
@pytest.mark.parametrize("kernel", STORES)
def test_every_access_to_pixels_is_of_16_bytes_in_machine_code(
    kernel: str, arch: int, tmp_path: Path
) -> None:
    code = machine_code(compile_once(f"{kernel}.cu", arch).cubin, tmp_path)[kernel]
    stores = Counter(re.findall(r"\b(?:STG|ST)\.E\b(?:\.(?:\w+))*", " ".join(code)))
    assert sum(stores.values()) == STORES[kernel]
    assert all(".128" in name for name in stores), stores
    loads = Counter(re.findall(r"\b(?:LDG|LD)\.E\b(?:\.(?:\w+))*", " ".join(code)))
    assert sum(n for name, n in loads.items() if ".128" in name) == LOADS[kernel], loads


def test_the_kernels_for_any_alignment_have_single_words(tmp_path: Path) -> None:
    found = ptx_accesses(compile_once("superpixelize.cu", 90).ptx, "superpixelize_words")
    assert found == {("st", 4): 2}
