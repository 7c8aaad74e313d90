"""What was done to each exposure can be read from the store alone."""

import json
import shutil
import zlib
from datetime import UTC, datetime

import astropy
import gwcs
import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

import fpgpu
from fpgpu.cli.main import main
from fpgpu.errors import StoreWriteError
from fpgpu.ingest.pipeline import ingest
from fpgpu.stores.exposures import exposure_records, write_records


@pytest.fixture(scope="module")
def stores(field, tmp_path_factory):
    """Two exposures that were read with options."""
    out = tmp_path_factory.mktemp("record") / "stores"
    assert ingest(field.files, out, bitmask="DO_NOT_USE+JUMP_DET").ok
    return out


def test_a_row_says_where_an_exposure_came_from_and_what_was_done(field, stores):
    table = exposure_records(stores)
    assert len(table) == 2
    row = table[0]
    path = field.files[0]
    assert (row["band"], row["expID"]) == ("F200W", path.name.removesuffix(".fits"))
    assert row["input"] == str(path)
    assert row["input_size"] == path.stat().st_size
    assert row["input_checksum"] == f"crc32:{zlib.crc32(path.read_bytes()):08x}"
    time = datetime.strptime(row["input_time"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert time.timestamp() == pytest.approx(path.stat().st_mtime, abs=1e-5)
    assert row["reader"] == "jwst"
    assert row["wcs"] == "gwcs"
    assert 0 < row["sip_residual_px"] < 1e-3
    assert (row["fpgpu_version"], row["numpy_version"]) == (fpgpu.__version__, np.__version__)
    assert (row["astropy_version"], row["gwcs_version"]) == (astropy.__version__, gwcs.__version__)
    assert "DO_NOT_USE+JUMP_DET" in row["options"]
    since = datetime.strptime(row["date"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert 0 <= (datetime.now(UTC) - since).total_seconds() < 3600


def test_masked_pixels_are_counted_by_cause_and_by_flag(field, stores):
    row = exposure_records(stores)[0]
    with fits.open(field.files[0]) as hdus:
        quality, header = hdus["DQ"].data, hdus["SCI"].header
        assert row["flux_factor"] == pytest.approx(1e15 * header["PIXAR_SR"], rel=1e-12)
    assert row["n_pixels"] == quality.size
    assert row["bitmask"] == 1 + 4
    assert row["masked_flagged"] == np.count_nonzero(quality & 5)
    assert row["dq_DO_NOT_USE"] == np.count_nonzero(quality & 1)
    assert row["dq_JUMP_DET"] == np.count_nonzero(quality & 4)


def test_what_was_not_recorded_is_masked(golden):
    table = exposure_records(golden / "tiny")
    assert len(table) == 6
    assert table["sip_residual_px"].mask.all()
    assert "input" not in table.colnames
    assert table["flux_units"].tolist() == ["nJy"] * 6


@pytest.mark.parametrize("ending", [".ecsv", ".fits"])
def test_tables_come_back_as_they_were_written(stores, tmp_path, ending):
    path = tmp_path / f"exposures{ending}"
    table = exposure_records(stores)
    write_records(table, path)
    write_records(table, path)  # replaces
    again = Table.read(path)
    assert again.colnames == table.colnames
    for name in table.colnames:
        # A text that is missing is an empty one in FITS.
        old, new = ([value or None for value in t[name].tolist()] for t in (table, again))
        assert new == old, name
    assert again["sip_residual_px"].unit == "pix"


@pytest.mark.parametrize(
    "marks",
    ["{", "[]", "[1]", "7", '[{"path": "a"}]', '[{"mtime_ns": 1e40}]', '[{"mtime_ns": "x"}]'],
)
def test_records_that_make_no_sense_are_left_out(golden, tmp_path, marks):
    shutil.copytree(golden / "tiny", tmp_path / "stores")
    with h5py.File(tmp_path / "stores" / "pixels.h5", "r+") as h5:
        attributes = next(iter(next(iter(h5.values())).values()))["data"].attrs
        attributes["fpgpu_input_files"] = marks
        attributes["fpgpu_dq_pixels"] = '{"DEAD": 3, "HOT": [1], "WARM": "many"}'
        attributes["fpgpu_version"] = attributes["fpgpu_checksum"] = "none"
    row = exposure_records(tmp_path / "stores")[0]
    assert row["dq_DEAD"] == 3
    assert not {"dq_HOT", "dq_WARM", "input"} & set(row.colnames)


def test_json_has_a_row_an_exposure(stores, tmp_path):
    write_records(exposure_records(stores), tmp_path / "exposures.json")
    rows = json.loads((tmp_path / "exposures.json").read_text())
    assert [row["band"] for row in rows] == ["F200W", "F200W"]
    assert json.loads(rows[0]["options"])["calibration"] == {"bitmask": "DO_NOT_USE+JUMP_DET"}


def test_other_endings_and_places_are_refused(stores, tmp_path):
    table = exposure_records(stores)
    with pytest.raises(StoreWriteError, match=r"expected one of \.ecsv, \.fits, \.json"):
        write_records(table, tmp_path / "exposures.txt")
    with pytest.raises(StoreWriteError, match="nowhere is not a folder"):
        write_records(table, tmp_path / "nowhere" / "exposures.ecsv")


def test_the_command_prints_and_writes_the_table(stores, tmp_path, capsys):
    assert main(["info", str(stores), "--exposures"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["band", "expID", "reader"]
    assert len(lines) == 4
    assert main(["info", str(stores), "--exposures", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    path = tmp_path / "exposures.ecsv"
    assert main(["info", str(stores), "--exposures", "--out", str(path)]) == 0
    assert "2 exposures" in capsys.readouterr().out
    assert len(Table.read(path)) == 2
