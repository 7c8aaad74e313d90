"""What an ingest would do is told without doing it; options come from a file."""

import json
from dataclasses import asdict

import pytest
from astropy.io import fits

from fpgpu import PixelStore
from fpgpu.cli.main import main
from fpgpu.demo.field import make_field
from fpgpu.ingest.dryrun import plan_ingest
from fpgpu.ingest.inputs import Input, ReadOptions
from fpgpu.ingest.pipeline import ingest
from tests.ingest.hstfiles import SIZE, write_flc
from tests.ingest.smallfiles import make_small_files


@pytest.fixture
def files(tmp_path):
    """Two JWST exposures, the second of which cannot be used, and an HST file of their size."""
    field = make_field(tmp_path, bands=("F200W",), n_per_band=2, size=SIZE, n_sources=3)
    with fits.open(field.files[1], mode="update") as hdus:
        del hdus["DQ"]
    return [*field.files, write_flc(tmp_path / "j9_flc.fits")]


def run_json(capsys, *arguments) -> tuple[int, list[dict]]:
    code = main(["ingest", *map(str, arguments), "--dry-run", "--json"])
    return code, json.loads(capsys.readouterr().out)["exposures"]


def test_a_dry_run_says_what_would_happen_and_writes_nothing(files, tmp_path, capsys):
    out = tmp_path / "stores"
    assert main(["ingest", *map(str, files), "--out", str(out), "--dry-run"]) == 1
    said = capsys.readouterr().out
    assert not out.exists()
    for text in ("F200W", "j9_flc_sci1", "j9_flc_sci2", "jwst", "hst", "32768", "MJy/sr"):
        assert text in said
    assert "has no extension DQ" in said
    assert "3 new and 0 replaced" in said
    assert "1 refused; nothing was written" in said
    assert "look-up tables" in said


def test_a_dry_run_as_json_is_what_the_ingest_then_does(files, tmp_path, capsys):
    out = tmp_path / "stores"
    ingest(files[:1], out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    code, plan = run_json(capsys, *files, "--out", out)
    assert code == 1
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    report = ingest(files, out)
    assert [one["status"] for one in plan] == ["replace", "refused", "new", "new"]
    status = {"replace": "replaced", "new": "stored", "refused": "refused"}
    for one, row in zip(plan, report.rows, strict=True):
        assert status[one["status"]] == row.status
        assert one["file"] == str(row.file)
        assert (one["band"], one["expID"], one["reason"]) == (row.band, row.expID, row.reason)
        if row.status != "refused":
            made = json.loads(json.dumps({**asdict(row), "file": str(row.file)}))
            for name in ("status", "seconds", "peak_bytes"):
                del one[name], made[name]
            assert one == made
    assert plan[0]["bad_flags"] == ["DO_NOT_USE"]
    assert plan[2]["bad_flags"] == ["any"]
    assert report.rows[2].sip_residual > 1e-5


def test_what_only_the_store_knows_is_planned_too(files, cal_of_another_size, tmp_path):
    items = [Input(path) for path in (files[0], cal_of_another_size, files[0])]
    plan = list(plan_ingest(items, tmp_path / "stores"))
    assert [one.status for one in plan] == ["new", "refused", "refused"]
    assert "all images of a store have one size" in plan[1].reason
    assert "gave in this run" in plan[2].reason


def test_exposures_are_padded_to_the_super_pixels_of_the_store(tmp_path):
    file = make_small_files(tmp_path, 1, side=40)[0]
    PixelStore(tmp_path / "stores" / "pixels.h5", 48, super_pixel_size=16).close()
    (plan,) = plan_ingest(Input(file, options=ReadOptions(pad=True)), tmp_path / "stores")
    assert (plan.status, plan.n_pixels) == ("new", 48 * 48)
    (row,) = ingest(file, tmp_path / "stores", pad=True).rows
    assert (row.status, row.n_pixels) == ("stored", 48 * 48)


@pytest.fixture
def cal_of_another_size(tmp_path):
    field = make_field(tmp_path / "small", bands=("F200W",), n_per_band=1, size=64, n_sources=3)
    return field.files[0]


def test_options_come_from_a_file(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SURVEY", str(tmp_path))
    config = tmp_path / "survey.yaml"
    config.write_text(
        "inputs: ${SURVEY}/*.fits\n"
        "out: ${SURVEY}/stores\n"
        "exposures:\n"
        "  - match: '*_flc.fits'\n"
        "    expID: '{INSTRUME}/{stem}_{part}'\n"
        "    bitmask: [DRIZZLEREJECT]\n"
    )
    code, plan = run_json(capsys, "--config", config)
    assert code == 1
    assert [one["expID"] for one in plan if one["reader"] == "hst"] == [
        "acs/j9_flc_sci1",
        "acs/j9_flc_sci2",
    ]
    assert [one["bad_flags"] for one in plan if one["reader"] == "hst"] == [["DRIZZLEREJECT"]] * 2
    assert main(["ingest", "--config", str(config), "-q"]) == 1
    assert "3 exposures in" in capsys.readouterr().out
    _, again = run_json(capsys, "--config", config)
    assert {one["status"] for one in again} == {"replace", "refused"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.fits"], "no store folder"),
        (["--out", "x"], "no files"),
        (["a.fits", "--out", "x", "--config", "none.yaml"], "none.yaml: no such file"),
        (["a.fits", "--out", "x", "--dry-run"], "nothing was written"),
    ],
)
def test_wrong_usage_is_refused(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main(["ingest", *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.out + captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [("--dry-run",), ()], ids=["dry run", "ingest"])
def test_a_band_of_the_configuration_that_no_file_holds_is_told(
    fpgpu_command, tiny_exposures, tmp_path, options
):
    config = tmp_path / "c.yaml"
    for bands, code in (("F444X", 2), ("[F444X, f200w]", 1), ("f200w", 0)):
        config.write_text(f"bands: {bands}\n")
        out = tmp_path / str(code)
        done = fpgpu_command(
            "ingest", *tiny_exposures, "--out", out, "--config", config, "--json", *options
        )
        assert done.code == code
        told = "no band 'F444X' in any input that could be read" in done.err
        assert told == ("did you mean F444W?" in done.err) == (code != 0)
        rows = json.loads(done.out)["exposures"]
        left_out = sum(row["status"] == "left out" for row in rows)
        assert left_out == (6 if code == 2 else 4)
