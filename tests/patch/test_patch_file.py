"""The file of a patch: every array under its name, self-describing, whole or not there."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import fpgpu
from fpgpu import CircularRegion, PolygonRegion, RectangularRegion
from fpgpu.errors import (
    FpgpuError,
    MissingStoreError,
    ReleasedMemoryError,
    StoreConflictError,
    StoreFormatError,
)
from fpgpu.layout import PATCH_ARRAYS
from fpgpu.likelihood.reference import evaluate
from fpgpu.patch.device import Patch
from fpgpu.patch.file import read_patch, write_patch
from fpgpu.patch.images import exposure_images
from fpgpu.sky.regions import Region

RA, DEC, RADIUS = 53.16, -27.79, 1.2 / 3600
SIDE = RADIUS / np.cos(np.deg2rad(DEC))
REGIONS = [
    CircularRegion(RA, DEC, RADIUS),
    RectangularRegion(RA - SIDE, RA + SIDE, DEC - RADIUS, DEC + RADIUS),
    PolygonRegion((RA - SIDE, RA + SIDE, RA), (DEC, DEC, DEC + RADIUS)),
]


@pytest.fixture(scope="module")
def survey(golden: Path) -> Iterator[fpgpu.Survey]:
    """forcepho's stores of the golden field."""
    with fpgpu.open(golden / "tiny", backend="cpu") as survey:
        yield survey


@pytest.fixture(scope="module")
def patch(survey: fpgpu.Survey, packed: dict[str, Any]) -> Iterator[Patch]:
    """The patch of the circle with its three sources."""
    with survey.patch(REGIONS[0], packed["sourcecat"]) as patch:
        yield patch


@pytest.fixture
def written(patch: Patch, tmp_path: Path) -> Path:
    """The file of that patch."""
    path = tmp_path / "patch.h5"
    assert write_patch(path, patch) == path.stat().st_size
    return path


def test_plain_hdf5_shows_forcepho_s_arrays_under_their_names(
    written: Path, packed: dict[str, Any]
) -> None:
    with h5py.File(written) as file:
        for name in set(PATCH_ARRAYS) - {"residual", "crpix", "crval", "CW", "D", "psfgauss"}:
            np.testing.assert_array_equal(file[name][()], packed[name], err_msg=name)
            assert file[name].dtype == PATCH_ARRAYS[name]
        for name in ("crpix", "crval", "CW", "D"):
            np.testing.assert_allclose(file[name][()], packed[name], rtol=1e-5, atol=1e-4)
        assert list(file["bandlist"].asstr()) == list(packed["bandlist"])
        names = [path.split("/")[1] for path in packed["epaths"]]
        assert list(file["expIDs"].asstr()) == names
        assert file.attrs["n_src"] == 3
        assert file.attrs["n_radii"] == 9


def test_every_dataset_says_its_units_its_axes_and_what_it_is(written: Path) -> None:
    with h5py.File(written) as file:
        datasets = [name for name in file if isinstance(file[name], h5py.Dataset)]
        assert set(datasets) >= set(PATCH_ARRAYS) - {"residual"}
        assert "residual" not in datasets
        for name in datasets:
            attributes = file[name].attrs
            assert attributes["axes"], name
            assert attributes["description"], name
            assert isinstance(attributes["units"], str), name
        assert file["data"].attrs["units"] == "nJy"
        assert file["ierr"].attrs["units"] == "1/(nJy)"


def test_units_are_those_of_the_store(patch: Patch, tmp_path: Path) -> None:
    write_patch(tmp_path / "patch.h5", patch, flux_units="counts")
    assert read_patch(tmp_path / "patch.h5").flux_units == "counts"
    with h5py.File(tmp_path / "patch.h5") as file:
        assert file["ierr"].attrs["units"] == "1/(counts)"


def test_what_is_read_is_what_was_written(written: Path, patch: Patch) -> None:
    found = read_patch(written)
    assert found.plan == patch.plan
    assert found.reference == patch.reference
    expected = patch.host_arrays()
    assert set(found.arrays) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found.arrays[name], values, err_msg=name)


def test_the_likelihood_of_what_was_read_is_forcepho_s(
    survey: fpgpu.Survey, tmp_path: Path, packed: dict[str, Any]
) -> None:
    with survey.patch(REGIONS[0], packed["sourcecat"], psf_per_source=False) as patch:
        write_patch(tmp_path / "patch.h5", patch)
    evaluation = evaluate(read_patch(tmp_path / "patch.h5").arrays, packed["proposal"])
    np.testing.assert_allclose(evaluation.chi2, packed["chi2"], rtol=1e-5)


def test_images_come_from_what_was_read(written: Path, patch: Patch) -> None:
    found = read_patch(written)
    for read, held in zip(
        exposure_images(found.plan, found.arrays["data"]), patch.images("data"), strict=True
    ):
        np.testing.assert_array_equal(read.image, held.image)


@pytest.mark.parametrize("region", REGIONS, ids=lambda region: type(region).__name__)
def test_regions_of_every_shape_come_back(
    survey: fpgpu.Survey, tmp_path: Path, region: Region
) -> None:
    with survey.patch(region, select="overlap") as patch:
        write_patch(tmp_path / "patch.h5", patch)
        assert read_patch(tmp_path / "patch.h5").plan == patch.plan
        assert patch.n_sources == 0


class TestReplacing:
    def test_an_older_patch_is_replaced(
        self, written: Path, survey: fpgpu.Survey, patch: Patch
    ) -> None:
        with survey.patch(REGIONS[0], bands=["F444W"]) as other:
            write_patch(written, other)
        assert read_patch(written).plan.bandlist == ("F444W",)
        assert [path.name for path in written.parent.iterdir()] == ["patch.h5"]

    def test_a_file_that_is_no_patch_is_never_overwritten(
        self, patch: Patch, golden: Path, tmp_path: Path
    ) -> None:
        store = tmp_path / "pixels.h5"
        shutil.copy(golden / "tiny" / "pixels.h5", store)
        before = store.read_bytes()
        with pytest.raises(StoreConflictError, match=r"pixels\.h5: exists and is no patch"):
            write_patch(store, patch)
        assert store.read_bytes() == before

    def test_a_folder_that_is_not_there_is_not_made(self, patch: Patch, tmp_path: Path) -> None:
        with pytest.raises(MissingStoreError, match="make it first"):
            write_patch(tmp_path / "nowhere" / "patch.h5", patch)

    def test_a_freed_patch_leaves_the_older_file(self, written: Path, survey: fpgpu.Survey) -> None:
        before = written.read_bytes()
        freed = survey.patch(REGIONS[0])
        freed.free()
        with pytest.raises(ReleasedMemoryError):
            write_patch(written, freed)
        assert written.read_bytes() == before


class TestDamage:
    def test_a_missing_file_is_reported(self, tmp_path: Path) -> None:
        with pytest.raises(MissingStoreError, match="fpgpu patch"):
            read_patch(tmp_path / "patch.h5")

    def test_a_store_is_no_patch(self, golden: Path) -> None:
        with pytest.raises(StoreFormatError, match="is no patch"):
            read_patch(golden / "tiny" / "pixels.h5")

    def test_half_a_file_is_no_patch(self, written: Path) -> None:
        content = written.read_bytes()
        written.write_bytes(content[: len(content) // 2])
        with pytest.raises(StoreFormatError):
            read_patch(written)

    @pytest.mark.parametrize("name", [*sorted(set(PATCH_ARRAYS) - {"residual"}), "superpixels"])
    def test_an_array_that_is_missing_or_short_is_named(self, written: Path, name: str) -> None:
        with h5py.File(written, "a") as file:
            values = file[name][()]
            del file[name]
        with pytest.raises(StoreFormatError, match=f"no array '{name}'"):
            read_patch(written)
        with h5py.File(written, "a") as file:
            file[name] = values[:-1]
        with pytest.raises(StoreFormatError):
            read_patch(written)

    @pytest.mark.parametrize("name", ["bandlist", "expIDs"])
    def test_names_that_are_numbers_are_refused(self, written: Path, name: str) -> None:
        with h5py.File(written, "a") as file:
            numbers = np.arange(len(file[name]))
            del file[name]
            file[name] = numbers
        with pytest.raises(StoreFormatError, match=f"{name} is int64; expected text"):
            read_patch(written)

    @pytest.mark.parametrize("name", ["select", "n_pixels", "super_pixel_size", "reference"])
    def test_an_attribute_that_makes_no_sense_is_refused(self, written: Path, name: str) -> None:
        with h5py.File(written, "a") as file:
            file.attrs[name] = np.bytes_(b"nonsense")
        with pytest.raises(StoreFormatError):
            read_patch(written)

    @pytest.mark.parametrize("change", ["kind", "gone", "field", "size"])
    def test_a_region_of_which_something_is_missing_is_refused(
        self, written: Path, change: str
    ) -> None:
        with h5py.File(written, "a") as file:
            if change == "kind":
                file["region"].attrs["kind"] = np.bytes_(b"Blob")
            elif change == "gone":
                del file["region"]
            elif change == "field":
                del file["region/radius"]
            else:
                del file["region/radius"]
                file["region/radius"] = np.zeros(3)
        with pytest.raises(StoreFormatError, match=r"patch\.h5"):
            read_patch(written)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("exposure_N", -64), ("exposure_N", 64), ("n_superpixels", 1)],
    )
    def test_sizes_that_contradict_each_other_are_refused(
        self, written: Path, name: str, value: int
    ) -> None:
        with h5py.File(written, "a") as file:
            file[name][0] += value
            if name == "n_superpixels":
                file[name][1] -= value
        with pytest.raises(StoreFormatError, match=r"patch\.h5: its sizes contradict each other;"):
            read_patch(written)

    def test_more_sources_than_there_are_arrays_for_are_refused(self, written: Path) -> None:
        with h5py.File(written, "a") as file:
            file.attrs["n_src"] = 1 << 20
        with pytest.raises(
            StoreFormatError, match=r"patch\.h5: D has shape .*; expected \(6, 1048576"
        ):
            read_patch(written)

    def test_a_region_that_makes_no_sense_is_refused(self, written: Path) -> None:
        with h5py.File(written, "a") as file:
            file["region/radius"][...] = -1.0
        with pytest.raises(StoreFormatError, match="its region is damaged"):
            read_patch(written)

    def test_damaged_bytes_give_an_error_of_fpgpu_or_values(
        self, written: Path, long_form: bool
    ) -> None:
        random = np.random.default_rng(3)
        content = bytearray(written.read_bytes())
        for _ in range(400 if long_form else 40):
            damaged = content.copy()
            # Metadata lies at the start and at the end, pixels in between.
            where = random.integers(0, 8192) * (1 if random.integers(2) else -1)
            damaged[where] ^= 1 << random.integers(8)
            written.write_bytes(damaged)
            try:
                read_patch(written)
            except FpgpuError:
                continue
