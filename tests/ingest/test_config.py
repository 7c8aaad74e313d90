"""Options of a survey in a YAML file."""

from pathlib import Path

import pytest

from fpgpu.errors import ConfigError, FpgpuError, MissingFileError
from fpgpu.ingest.config import _OPTION_KEYS, load_config
from fpgpu.ingest.inputs import CalibrationOptions, Input, ReadOptions

SURVEY = """\
inputs: ["${SURVEY}/jwst/*_cal.fits", $SURVEY/hst]
out: ${SURVEY}/stores
bitmask: [DO_NOT_USE, SATURATED]
wcs: auto
split_by_detector: f200w
exposures:
  - match: "*_flc.fits"
    bitmask: 0x1000
    rename_bands: {F606W: ACS_F606W}
    sip_tolerance: 0.05
  - match: "*nrca3*"
    background: ${SURVEY}/bkg/{stem}_bkg.fits
    background_offset: -2e-2
    max_snr: 200
    tile: [2048, 1024]
    tile_overlap: 64
    expID: "{DETECTOR}/{stem}"
    pad: yes
    fluxcal: off
"""


@pytest.fixture
def survey(tmp_path, monkeypatch):
    """A folder with the files that the configuration speaks of."""
    monkeypatch.setenv("SURVEY", str(tmp_path))
    for name in ("jwst/1_nrca3_cal.fits", "jwst/2_nrcb1_cal.fits", "hst/j9_flc.fits"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "survey.yaml"
    path.write_text(text)
    return path


def test_every_file_gets_the_options_of_its_sections(survey):
    config = load_config(written(survey, SURVEY))
    assert config.out == survey / "stores"
    nrca3, nrcb1, flc = config.inputs()
    both = {"split_by_detector": ("F200W",)}
    assert nrcb1 == Input(
        survey / "jwst" / "2_nrcb1_cal.fits",
        options=ReadOptions(**both),
        calibration=CalibrationOptions(bitmask=("DO_NOT_USE", "SATURATED")),
        root=survey / "jwst",
    )
    assert flc.options == ReadOptions(sip_tolerance=0.05, band_names={"F606W": "ACS_F606W"}, **both)
    assert flc.calibration == CalibrationOptions(bitmask=4096)
    assert nrca3.companions == {"bkg": survey / "bkg" / "1_nrca3_cal_bkg.fits"}
    assert nrca3.options == ReadOptions(
        tile=(2048, 1024), tile_overlap=64, expID="{DETECTOR}/{stem}", pad=True, **both
    )
    assert nrca3.calibration == CalibrationOptions(
        bitmask=("DO_NOT_USE", "SATURATED"),
        background_offset=-0.02,
        max_snr=200,
        do_fluxcal=False,
    )


def test_the_command_line_goes_before_the_file(survey):
    config = load_config(written(survey, SURVEY))
    files = [survey / "hst" / "j9_flc.fits", survey / "a_nrca3.fits"]
    assert [item.options.pad for item in config.inputs(files)] == [False, True]
    found = config.inputs(files, {"pad": False, "bitmask": "DEAD"})
    assert [item.options.pad for item in found] == [False, False]
    assert [item.calibration.bitmask for item in found] == ["DEAD", "DEAD"]


def test_later_sections_go_before_earlier_ones(survey):
    text = "max_snr: 1\nexposures:\n- {match: '*', max_snr: 2}\n- {match: '*flc*', max_snr: 3}\n"
    config = load_config(written(survey, text))
    found = config.inputs([survey / "hst", survey / "jwst"])
    assert [item.calibration.max_snr for item in found] == [3, 2, 2]


def test_images_are_files_or_extensions_and_what_is_said_last_holds(tmp_path):
    def one(text, **overrides):
        (item,) = load_config(written(tmp_path, text)).inputs([tmp_path / "a_sci.fits"], overrides)
        return item.options.extensions, {role: path.name for role, path in item.companions.items()}

    for name in ("a_sci.fits", "a_err.fits"):
        (tmp_path / name).touch()
    assert one("wcs: auto") == ({}, {"err": "a_err.fits"})
    assert one("sci: 1\nerr: 2") == ({"sci": 1, "err": 2}, {})
    assert one("err: err2\nmask: '{stem}_m.fits'") == ({"err": "ERR2"}, {"mask": "a_sci_m.fits"})
    assert one("err: 2", err="x/{stem}.fits") == ({}, {"err": "a_sci.fits"})
    assert one("err: x/y.fits", err=3) == ({"err": 3}, {})


def test_a_section_that_matches_nothing_is_told(survey):
    path = written(survey, "wcs: fits\nexposures:\n  - match: '*_flt.fits'\n    pad: true\n")
    with pytest.raises(ConfigError, match=r"yaml, line 3: match '\*_flt\.fits' matches none"):
        load_config(path).inputs([survey / "hst"])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("wcs: auto\nbitmsk: 3", r"line 2: unknown key 'bitmsk'; did you mean 'bitmask'"),
        ("exposures:\n- match: a\n  paad: 1", r"line 3: unknown key 'paad'; did you mean 'pad'"),
        ("exposures:\n- match: a\n  out: 1", r"line 3: unknown key 'out'"),
        ("zzz: 1", "known: inputs"),
        ("pad: true\npad: false", "line 2: key 'pad' is there twice"),
        ("pad: 1", r"line 1: pad is 1; expected true or false"),
        ("tile: 2048.5", "tile is 2048.5; expected an integer or two"),
        ("tile: [2048, yes]", r"tile is \[2048, True\]; expected an integer or two"),
        ("max_snr: many", "max_snr is 'many'; expected a positive number"),
        ("wcs: [auto]", r"wcs is \['auto'\]; expected one of auto"),
        ("bitmask: {a: b}", "bitmask is .*; expected a number, a flag name"),
        ("rename_bands: F606W", "expected names with new names"),
        ("rename_bands: {F606W: 606}", "expected names with new names"),
        ("exposures: {match: a}", "expected a list of sections"),
        ("exposures: [a]", "expected a list of sections"),
        ("exposures:\n- pad: true", "line 2: the section has no match"),
        ("out: ${NOT_SET_ANYWHERE}/x", "line 1: the environment variable NOT_SET_ANYWHERE is not"),
        ("wcs: best", "wcs is 'best'; expected one of auto"),
        ("exposures:\n- match: a\n  bitmask: DEAF", r"line 3: 'DEAF' is no JWST data-quality flag"),
        ("tile: 100", "tile has 100 x 100 pixels"),
        (
            "background: '{stam}.fits'",
            r"background is '\{stam\}.fits'; expected no fields but \{stem\}",
        ),
        ("sci: [1, 2]", r"sci is \[1, 2\]; expected .*name or number of an extension"),
        ("sci: -1", "extension with sci is -1; expected its name, or its number from 0 on"),
        ("sci: 1\nerr: 1", "one extension cannot be several images"),
        ("err: true", "err is True; expected a file name, or name or number of an extension"),
        ("scii: 1", "line 1: unknown key 'scii'; did you mean 'sci'"),
        ("- wcs", "expected keys with values"),
        ("", "expected keys with values"),
        ("a: [", "is no plain YAML"),
        ("wcs: !!python/object/apply:os.system [ls]", "is no plain YAML: could not determine"),
        ("? [a]\n: 1", "is no plain YAML"),
        ("expID: 2020-13-45", "is no plain YAML: month must be in 1..12"),
        ("expID: !!timestamp soon", "is no plain YAML"),
        ("pad: !!bool perhaps", "is no plain YAML: 'perhaps'"),
        ("abmag: !!float bright", "is no plain YAML: could not convert string to float"),
        ("max_snr: " + "[" * 5000, "survey.yaml"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(tmp_path, text, match):
    with pytest.raises(ConfigError, match=match) as caught:
        load_config(written(tmp_path, text))
    assert "survey.yaml" in str(caught.value)


def test_aliases_that_expand_hugely_do_no_harm(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(ConfigError, match="unknown key 'a0'"):
        load_config(written(tmp_path, "\n".join(lines)))
    with pytest.raises(ConfigError, match="larger than"):
        load_config(written(tmp_path, "#" * (1 << 21)))


def test_missing_files_are_told(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.yaml"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="no inputs"):
        load_config(written(tmp_path, "wcs: auto")).inputs()
    with pytest.raises(FpgpuError, match="cannot be read"):
        load_config(tmp_path)


def test_a_dollar_sign_can_be_written(tmp_path):
    assert load_config(written(tmp_path, "out: $$x")).out == Path("$x")


def test_every_key_is_an_option_of_an_input():
    known = {*ReadOptions.__dataclass_fields__, *CalibrationOptions.__dataclass_fields__}
    names = {"rename_bands": "band_names", "fluxcal": "do_fluxcal", "sci": "extensions"}
    companions = {"err", "wht", "mask", "background", "area"}
    keys = {names.get(key, key) for key in set(_OPTION_KEYS) - companions}
    # The size of a super-pixel is that of the store.
    assert keys == known - {"super_pixel_size"}
