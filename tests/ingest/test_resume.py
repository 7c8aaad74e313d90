"""A resumed run does what is missing or has changed, nothing else, and says all of it."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from fpgpu import MetaStore, PixelStore
from fpgpu.cli.main import main
from fpgpu.ingest import readers
from fpgpu.ingest.inputs import Input, ReadOptions
from fpgpu.ingest.pipeline import ingest
from fpgpu.stores.shard import find_orphans, store_id, write_shard
from tests.ingest.contents import contents


@pytest.fixture
def files(golden, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for path in sorted((golden / "tiny").glob("exp_*.fits.gz"))[:3]:
        shutil.copy(path, folder)
    return sorted(folder.iterdir())


@pytest.fixture
def read_files(monkeypatch):
    """The files that were read, by name."""
    names = []
    real = readers.read_exposures

    def noted(item):
        names.append(item.path.name)
        return real(item)

    monkeypatch.setattr("fpgpu.ingest.work.read_all", noted)
    return names


def statuses(report):
    return [row.status for row in report.rows]


def shards(folder):
    return sorted(path.name for path in folder.rglob("*-*.h5"))


def test_what_is_there_and_unchanged_is_not_touched(files, tmp_path, read_files):
    first = ingest(files, tmp_path / "s")
    before = shards(tmp_path / "s")
    read_files.clear()
    seen = []
    report = ingest(files, tmp_path / "s", resume=True, on_progress=seen.append)
    assert statuses(report) == ["unchanged"] * 3
    assert report.ok
    assert report.added == []
    assert seen == report.rows
    assert (read_files, shards(tmp_path / "s")) == ([], before)
    for old, new in zip(first.rows, report.rows, strict=True):
        assert (new.file, new.band, new.expID) == (old.file, old.band, old.expID)
        assert (new.n_masked, new.masked, new.flags) == (old.n_masked, old.masked, old.flags)
        assert (new.bitmask, new.masked_by_flag) == (old.bitmask, old.masked_by_flag)


@pytest.mark.parametrize("bitmask", [None, 0, 4, "DO_NOT_USE+DEAD", 5])
def test_the_report_counts_the_pixels_that_flags_have_masked(files, tmp_path, bitmask, capsys):
    """Not all that carry a flag; and a resumed run tells the same."""
    bits = {None: 2**32 - 1, "DO_NOT_USE+DEAD": 1 | 1 << 10}.get(bitmask, bitmask)
    flags = {1: "DO_NOT_USE", 4: "JUMP_DET"}
    expected = []
    for file in files:
        with fits.open(file) as hdus:
            quality = hdus["DQ"].data
        found = {name: np.count_nonzero(quality & bit) for bit, name in flags.items() if bit & bits}
        expected.append({name: n for name, n in found.items() if n})
    for _ in range(2):
        rows = ingest(files, tmp_path / "s", bitmask=bitmask, resume=True).rows
        assert [row.bitmask for row in rows] == [bits] * 3
        assert [row.masked_by_flag for row in rows] == expected
    options = [] if bitmask is None else ["--bitmask", str(bitmask)]
    main(
        ["ingest", *map(str, files), "--out", str(tmp_path / "t"), "--executor", "serial", *options]
    )
    table = capsys.readouterr().out.partition("masked because")[2]
    for name in flags.values():
        told = [
            int(line.split()[2]) for line in table.splitlines() if line.startswith(f"DQ {name}")
        ]
        assert sum(told) == sum(counts.get(name, 0) for counts in expected)


def test_without_resume_all_is_done_again(files, tmp_path):
    ingest(files, tmp_path / "s")
    assert statuses(ingest(files, tmp_path / "s")) == ["replaced"] * 3


def test_what_is_missing_is_made(files, tmp_path, read_files):
    ingest(files[:1], tmp_path / "s")
    report = ingest(files, tmp_path / "s", resume=True)
    assert statuses(report) == ["unchanged", "stored", "stored"]
    whole = tmp_path / "whole"
    ingest(files, whole)
    assert contents(tmp_path / "s") == contents(whole)


@pytest.mark.parametrize("how", ["content", "longer", "content, same size"])
def test_a_file_that_has_changed_is_done_again(files, tmp_path, how):
    ingest(files, tmp_path / "s")
    if how == "content":
        with fits.open(files[1], mode="update") as hdus:
            hdus["SCI"].data[:] += 1
    elif how == "longer":
        files[1].write_bytes(files[1].read_bytes() + b"\0")
    else:
        content = bytearray(files[1].read_bytes())
        content[4] ^= 1  # the time in the head of a gzip file, which nobody looks at
        files[1].write_bytes(content)
    report = ingest(files, tmp_path / "s", resume=True)
    assert statuses(report) == ["unchanged", "replaced", "unchanged"]


def test_a_file_that_was_only_touched_is_compared_by_its_checksum(files, tmp_path, read_files):
    ingest(files, tmp_path / "s")
    read_files.clear()
    os.utime(files[1], (0, 0))
    assert statuses(ingest(files, tmp_path / "s", resume=True)) == ["unchanged"] * 3
    assert read_files == []


@pytest.mark.parametrize("options", [{"bitmask": 4}, {"do_fluxcal": False}, {"wcs": "fits"}])
def test_other_options_make_it_again(files, tmp_path, options):
    ingest(files, tmp_path / "s")
    assert statuses(ingest(files, tmp_path / "s", resume=True, **options)) == ["replaced"] * 3
    assert statuses(ingest(files, tmp_path / "s", resume=True, **options)) == ["unchanged"] * 3


def test_options_that_mean_the_same_are_the_same(files, tmp_path, monkeypatch):
    """Paths are compared as they are, not as they were written."""
    ingest(files, tmp_path / "s", framedir=tmp_path)
    monkeypatch.chdir(files[0].parent)
    relative = [Path(path.name) for path in files]
    report = ingest(relative, Path("../s"), framedir="..", resume=True)
    assert statuses(report) == ["unchanged"] * 3
    assert [row.file for row in report.rows] == relative


def test_a_companion_that_has_changed_makes_it_again(files, tmp_path):
    background = tmp_path / "bkg.fits"
    fits.writeto(background, fits.getdata(files[0], "BKG"))
    item = Input(files[0], {"bkg": background}, ReadOptions())
    assert statuses(ingest([item], tmp_path / "s")) == ["stored"]
    assert statuses(ingest([item], tmp_path / "s", resume=True)) == ["unchanged"]
    fits.writeto(background, fits.getdata(files[0], "BKG") * 2, overwrite=True)
    assert statuses(ingest([item], tmp_path / "s", resume=True)) == ["replaced"]
    assert statuses(ingest(files[:1], tmp_path / "s", resume=True)) == ["replaced"]


def test_what_only_one_store_holds_is_made_again(files, tmp_path):
    ingest(files, tmp_path / "s")
    with MetaStore(tmp_path / "s" / "meta.json") as meta:
        del meta.headers["F090W"]["exp_f090w_01"]
        meta.write_to_file(tmp_path / "s" / "meta.json")
    report = ingest(files, tmp_path / "s", resume=True)
    assert statuses(report) == ["unchanged", "replaced", "unchanged"]
    contents(tmp_path / "s")


def test_what_others_have_stored_is_not_known_to_be_current(files, golden, tmp_path):
    out = tmp_path / "s"
    out.mkdir()
    for name in ("pixels.h5", "meta.json"):
        shutil.copy(golden / "tiny" / name, out)
    report = ingest(files, out, resume=True, bitmask=1)
    assert statuses(report) == ["replaced"] * 3
    with PixelStore(out / "pixels.h5", mode="r") as pixels:
        assert len(pixels) == 6  # a store of one file, and three shards beside it


def test_exposures_in_memory_are_always_done(files, tmp_path):
    exposure = readers.read_exposure(files[0])
    ingest([exposure], tmp_path / "s")
    assert statuses(ingest([exposure], tmp_path / "s", resume=True)) == ["replaced"]


@pytest.mark.parametrize("relative", [False, True])
def test_shards_of_a_killed_run_are_told_and_taken_up_by_resume(
    relative, files, tmp_path, monkeypatch, caplog
):
    out = tmp_path / "s"
    ingest(files, tmp_path / "whole")
    ingest(files[:1], out)
    # As a worker leaves it that has written, and whose run was killed before the commit.
    rows = PixelStore(tmp_path / "whole" / "pixels.h5", mode="r").state.index.rows
    row = list(rows.values())[1]
    home = store_id(out / "pixels.h5")
    stray = out / row.file.replace(row.file.split("-")[-2], home)
    stray.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(tmp_path / "whole" / row.file, stray)
    (stray.parent / ".half-written.h5.part").write_bytes(b"x")
    caplog.clear()
    ingest(files[:1], out)
    assert "2 of its files belong to no commit" in caplog.text
    assert stray.exists()
    monkeypatch.chdir(files[0].parent)
    given = [path.name if relative else path for path in files[:2]]
    report = ingest(given, out, resume=True)
    assert statuses(report) == ["unchanged", "unchanged"]
    assert list(contents(out)) == list(contents(tmp_path / "whole"))[:2]
    assert find_orphans(out) == []


def test_a_shard_that_was_made_otherwise_is_not_taken_up(files, tmp_path):
    out = tmp_path / "s"
    exposure = readers.read_exposure(files[1])
    write_shard(out, exposure, shape=exposure.shape)  # it does not say of which input it is
    assert statuses(ingest(files[1:2], out, resume=True)) == ["stored"]
    assert len(find_orphans(out)) == 1


def test_an_input_that_went_in_in_part_is_tried_again(files, tmp_path, monkeypatch):
    """Two exposures in a file, one of which is refused: that is told each time, not forgotten."""
    real = readers.read_exposures

    def two(item):
        for part in ("a", "b"):
            exposure = next(real(item))
            exposure.expID += part
            if part == "b":
                exposure.ierr = np.zeros_like(exposure.ierr)
            yield exposure

    monkeypatch.setattr("fpgpu.ingest.work.read_all", two)
    for status in ("stored", "replaced"):
        report = ingest(files[:1], tmp_path / "s", resume=True)
        assert statuses(report) == [status, "refused"]
        assert report.rows[1].expID == "exp_f090w_00b"
        assert "no pixel has any weight" in report.rows[1].reason
        assert list(contents(tmp_path / "s")) == ["F090W/exp_f090w_00a"]


def test_a_file_that_changes_while_it_is_read_does_not_go_in(files, tmp_path, monkeypatch):
    real = readers.read_exposures

    def changing(item):
        yield from real(item)
        item.path.touch()

    monkeypatch.setattr("fpgpu.ingest.work.read_all", changing)
    report = ingest(files[:1], tmp_path / "s")
    assert statuses(report) == ["refused"]
    assert "was changed while it was read" in report.rows[0].reason
    assert not (tmp_path / "s" / "pixels.h5").exists()
    assert shards(tmp_path / "s") == []


def test_the_command_says_what_was_left_out(files, tmp_path, capsys):
    arguments = ["ingest", *map(str, files), "--out", str(tmp_path / "s"), "--resume"]
    assert main(["ingest", str(tmp_path / "nowhere.fits"), *arguments[1:]]) == 1
    capsys.readouterr()
    assert main(arguments) == 0
    assert "0 exposures in" in (out := capsys.readouterr().out)
    assert "3 unchanged, 0 refused" in out


def test_refusals_are_collected_in_a_table(files, tmp_path, capsys):
    garbage = tmp_path / "garbage.fits"
    garbage.write_bytes(b"garbage")
    given = [tmp_path / "nowhere.fits", files[0], garbage]
    assert main(["ingest", *map(str, given), "--out", str(tmp_path / "s")]) == 1
    out = capsys.readouterr().out
    table = out[out.index("refused  ") :]
    assert f"{given[0]}  no such file" in " ".join(table.split(" ")).replace("   ", "  ")
    assert str(garbage) in table
    assert "1 exposure in" in table
    assert "2 refused" in table
