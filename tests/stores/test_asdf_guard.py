"""What may be large in an ASDF file, and what may not."""

import pytest

from fpgpu.errors import UnusableExposureError
from fpgpu.stores.metadata import asdfguard
from fpgpu.stores.metadata.asdfguard import check_asdf


def asdf_text(lines: list[str]) -> bytes:
    return ("#ASDF 1.0.0\n%YAML 1.1\n---\n" + "\n".join(lines) + "\n...\n").encode()


def test_thousands_of_gwcs_are_no_bomb_although_they_have_as_many_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asdfguard, "_MAX_NODES", 1000)
    entries = [f"e{i}: {{frame: &f{i} [x, y], again: *f{i}, values: [1, 2]}}" for i in range(400)]
    check_asdf("meta.asdf", asdf_text(entries))
    of_a, of_b = (", ".join([f"*{name}"] * 10) for name in "ab")
    bomb = [f"a: &a [{', '.join('0123456789')}]", f"b: &b [{of_a}]", f"c: [{of_b}]"]
    with pytest.raises(UnusableExposureError, match="aliases that stand for more"):
        check_asdf("meta.asdf", asdf_text(bomb))
