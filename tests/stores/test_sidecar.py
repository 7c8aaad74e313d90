"""The sidecar of fpgpu 0.1, ``meta.fpgpu.npz``: a damaged one is ignored, with a sentence."""

import json
import random
import re
import zipfile

import numpy as np
import pytest

from fpgpu import MetaStore, PixelStore, SkyWCS
from fpgpu.sky.sip import fit_sip
from fpgpu.stores.legacy import sidecar_records
from fpgpu.stores.metadata.skyrecords import SkyColumns
from fpgpu.stores.upkeep.verify import verify
from tests.sky.made_wcs import sky_gwcs
from tests.stores.corruptions import damaged, write_old
from tests.stores.imagesets import assert_holds
from tests.stores.shardsets import exposure

SIDE = 16
NAMES = ["a", "b"]


def old_store(folder, ra):
    """Make a store as fpgpu 0.1 left it, with a sidecar; return its exposures."""
    gwcs = sky_gwcs(ra=ra, shape=(SIDE, SIDE))
    sip = fit_sip(SkyWCS.from_native(gwcs), (SIDE, SIDE))
    imsets = [
        exposure(expID="a", side=SIDE, gwcs=gwcs, sip=sip),
        exposure(expID="b", side=SIDE, seed=round(ra)),
    ]
    folder.mkdir()
    write_old(folder / "pixels.h5", *imsets)
    meta = MetaStore()
    for imset in imsets:
        meta.add_exposure(imset)
    meta.write_to_file(folder / "meta.json")
    status = (folder / "meta.asdf").stat()
    np.savez(
        folder / "meta.fpgpu.npz",
        version=2,
        json_names=np.frombuffer(json.dumps({"F200W": NAMES}).encode(), np.uint8),
        asdf_stat=[status.st_size, status.st_mtime_ns],
        **SkyColumns.of([meta.entry("F200W", name).record for name in NAMES]).arrays(),
    )
    return imsets


@pytest.fixture
def imsets(tmp_path):
    return old_store(tmp_path / "stores", 53.0)


@pytest.fixture
def folder(imsets, tmp_path):
    return tmp_path / "stores"


@pytest.fixture
def sidecar(folder):
    return folder / "meta.fpgpu.npz"


def records(folder):
    """Return what the sidecar tells of each exposure, to the bit; with and without its gWCS."""
    texts = json.loads((folder / "meta.json").read_text())
    found = sidecar_records(folder / "meta.json", folder / "meta.asdf", texts)

    def to_the_bit(record):
        return {name: v.tobytes() for name, v in SkyColumns.of([record]).arrays().items()}

    return {
        key: (to_the_bit(record), to_the_bit(record.without_gwcs()))
        for key, record in found.items()
    }


def test_a_sound_sidecar_saves_fitting_again(folder):
    assert [*records(folder)] == [("F200W", name) for name in NAMES]
    with MetaStore(folder / "meta.json") as meta:
        assert meta.sip_fit("F200W", "a").residual < 1e-4
    PixelStore(folder / "pixels.h5").add_exposure(exposure(expID="new", side=SIDE))
    with MetaStore(folder / "meta.json") as meta:
        assert meta.sip_fit("F200W", "a").residual < 1e-4


def test_what_damage_leaves_is_as_it_was_or_ignored(folder, sidecar, caplog, long_form):
    whole, content = records(folder), sidecar.read_bytes()
    # Numbers of half the size would leave half of an array unread, with the checksum at its end.
    types = [found.start() + 1 for found in re.finditer(rb"[iuf]8'", content)]
    places = range(0, len(content), 1 if long_form else 97)
    flips = [content[:n] + bytes([content[n] ^ 0x0C]) + content[n + 1 :] for n in (*types, *places)]
    cuts = [content[:n] for n in range(0, len(content), 1 if long_form else 501)]
    rng = random.Random(1)
    mixed = [damaged(content, rng) for _ in range(3000 if long_form else 100)]
    n_ignored = 0
    for damage in (*flips, *cuts, *mixed):
        caplog.clear()
        sidecar.write_bytes(damage)
        found = records(folder)
        assert all(found[key][0] in whole[key] for key in found)
        if not found:
            n_ignored += 1
            assert "meta.fpgpu.npz: damaged and ignored (" in caplog.text
    assert n_ignored > len(cuts)


def test_a_type_of_half_the_size_is_no_way_around_the_checksum(folder, sidecar, caplog):
    """It leaves the end of a large array unread, and with it what zipfile compares."""
    with MetaStore(folder / "meta.json") as meta:
        entry = meta.entry("F200W", "a")
    names = [f"e{n}" for n in range(1000)]
    texts = {"F200W": dict.fromkeys(names, entry.text)}
    (folder / "meta.json").write_text(json.dumps(texts))
    np.savez(
        sidecar,
        json_names=np.frombuffer(json.dumps({"F200W": names}).encode(), np.uint8),
        **SkyColumns.of([entry.record] * len(names)).arrays(),
    )
    assert len(records(folder)) == len(names)
    content = sidecar.read_bytes()
    at = content.index(b"<i8", content.index(b"shapes.npy"))
    sidecar.write_bytes(content[:at] + b"<i4" + content[at + 3 :])
    assert len(records(folder)) == 0
    assert "damaged and ignored" in caplog.text


def outlines(folder):
    """Return the outlines of exposures by their gWCS, or headers where they have none."""
    with MetaStore(folder / "meta.json", use_gwcs=None) as meta:
        return {name: meta.footprint("F200W", name).tolist() for name in NAMES}


@pytest.mark.parametrize("kind", ["cut", "flip", "empty", "garbage", "folder", "another store's"])
def test_a_store_with_a_damaged_sidecar_is_read_and_changed(
    kind, imsets, folder, sidecar, tmp_path, caplog
):
    content = sidecar.read_bytes()
    member = zipfile.ZipFile(sidecar).getinfo("gwcs_outline.npy")
    at = member.header_offset + member.file_size // 2
    old_store(tmp_path / "other", 150.0)
    other = (tmp_path / "other" / "meta.fpgpu.npz").read_bytes()
    sidecar.unlink()
    right = outlines(folder)
    if kind == "folder":
        sidecar.mkdir()
    else:
        flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        contents = {"cut": content[:-900], "flip": flipped, "another store's": other}
        sidecar.write_bytes({"empty": b"", "garbage": b"PK" * 500, **contents}[kind])
    assert outlines(folder) == right
    PixelStore(folder / "pixels.h5").add_exposure(exposure(expID="new", side=SIDE))
    assert outlines(folder) == right
    assert [problem.kind for problem in verify(folder).problems] == ["view"]
    with PixelStore(folder / "pixels.h5") as pixels, MetaStore(folder / "meta.json") as meta:
        assert_holds(pixels, *imsets)
        assert meta.headers["F200W"]["a"]["CRVAL1"] == imsets[0].hdr["CRVAL1"]
    assert ("damaged and ignored" in caplog.text) == (kind != "another store's")
