"""Plans of patches: forcepho's order and numbers, limits, and plans as values."""

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from fpgpu import CircularRegion, MetaStore, PixelStore, PolygonRegion, RectangularRegion
from fpgpu.backends.base import MemoryState
from fpgpu.backends.cpu import CpuBackend
from fpgpu.errors import (
    MissingStoreError,
    NotInStoreError,
    PlanError,
    RegionError,
    StoreConflictError,
)
from fpgpu.patch.plan import ExposurePlan, PatchPlan, make_plan
from fpgpu.patch.stores import Stores
from fpgpu.sky.wcs import SkyWCS
from tests.patch.fields import dithered, empty_pixels, meta_of
from tests.sky.made_wcs import sky_gwcs, tan_header

CENTRE = (53.16, -27.79)
BANDS = ("F090W", "F200W", "F444W")


@pytest.fixture(scope="module")
def golden_stores(stores: Stores) -> tuple[PixelStore, MetaStore]:
    """forcepho's stores of the tiny field."""
    return stores.pixels, stores.meta


@pytest.fixture(scope="module")
def golden_plan(
    golden_stores: tuple[PixelStore, MetaStore], packed: dict[str, np.ndarray]
) -> PatchPlan:
    """Of the region whose patch forcepho packed."""
    return make_plan(*golden_stores, CircularRegion(*packed["region"]), BANDS)


def pixels_of(plan: PatchPlan, store: PixelStore) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of all pixels of a plan, in its order."""
    taken = [tuple(e.superpixels.T) for e in plan.exposures]
    x, y = (np.concatenate([a[t].ravel() for t in taken]) for a in (store.xpix, store.ypix))
    return x, y


# --- forcepho's answers --------------------------------------------------------------------------


def test_pixels_and_their_order_are_forcephos(
    golden_plan: PatchPlan,
    golden_stores: tuple[PixelStore, MetaStore],
    packed: dict[str, np.ndarray],
) -> None:
    x, y = pixels_of(golden_plan, golden_stores[0])
    assert np.array_equal(x, packed["xpix"])
    assert np.array_equal(y, packed["ypix"])


def test_exposures_bands_and_counts_are_forcephos(
    golden_plan: PatchPlan, packed: dict[str, np.ndarray]
) -> None:
    names = [f"{e.band}/{e.expID}" for e in golden_plan.exposures]
    assert names == packed["epaths"].tolist()
    assert list(golden_plan.bandlist) == packed["bandlist"].tolist()
    for name in ("exposure_start", "exposure_N", "band_start", "band_N"):
        assert getattr(golden_plan, name).tolist() == packed[name].tolist()
    assert golden_plan.n_pixels == len(packed["data"])
    assert golden_plan.n_superpixels == len(packed["data"]) // 64
    assert (golden_plan.n_exp, golden_plan.n_bands) == (6, 3)


def test_bands_come_in_the_order_asked_for(
    golden_stores: tuple[PixelStore, MetaStore], packed: dict[str, np.ndarray]
) -> None:
    region = CircularRegion(*packed["region"])
    plan = make_plan(*golden_stores, region, ["F444W", "F090W", "F444W"])
    assert plan.bandlist == ("F444W", "F090W")
    assert [e.band for e in plan.exposures] == ["F444W"] * 2 + ["F090W"] * 2
    assert make_plan(*golden_stores, region, "F200W").bandlist == ("F200W",)
    assert make_plan(*golden_stores, region).bandlist == BANDS


# --- which exposures -----------------------------------------------------------------------------


def test_a_region_on_no_exposure_gives_an_empty_plan(
    golden_stores: tuple[PixelStore, MetaStore],
) -> None:
    for region, bands in (
        (CircularRegion(233.0, 60.0, 0.01), None),
        (CircularRegion(*CENTRE, 0.001), []),
    ):
        plan = make_plan(*golden_stores, region, bands)
        assert (plan.n_exp, plan.n_bands, plan.n_pixels, plan.bandlist) == (0, 0, 0, ())
        assert plan.arena_layout(0, 0, 0).n_pixels == 0
        assert "0 exposures in 0 bands (no bands): 0 pixels" in str(plan)


def test_a_band_that_is_not_there_is_no_empty_plan(
    golden_stores: tuple[PixelStore, MetaStore],
) -> None:
    region = CircularRegion(*CENTRE, 0.001)
    for bands in (["F200W", "F444X"], "F444X", ("f444w",), iter(["F444X"])):
        with pytest.raises(NotInStoreError, match=r"no band .*F200W.*did you mean F444W"):
            make_plan(*golden_stores, region, bands)


@pytest.mark.parametrize("select", ["corners", "overlap"])
def test_exposures_of_which_nothing_is_taken_are_left_out(tmp_path: Path, select: str) -> None:
    # Six detectors in a row, 64 pixels apart, in one band.
    step = 64 * 0.06 / 3600
    headers = [tan_header(10.0, k * step, (64, 64), angle=0.0, sip=0.0) for k in range(6)]
    meta = meta_of(("F200W", f"e{k}", header) for k, header in enumerate(headers))
    store = empty_pixels(tmp_path / "pixels.h5", meta, (64, 64))
    region = CircularRegion(10.0, 2 * step, 0.6 * step)
    plan = make_plan(store, meta, region, select=select)
    assert [e.expID for e in plan.exposures] == ["e1", "e2", "e3"]


@pytest.mark.parametrize(("nx", "ny"), [(64, 64), (96, 64), (64, 128)])
def test_a_region_on_one_corner_pixel_finds_the_exposure(tmp_path: Path, nx: int, ny: int) -> None:
    header = tan_header(shape=(nx, ny), sip=1e-6)
    sky = SkyWCS.from_header(header)
    meta = meta_of([("F200W", "e1", header)])
    store = empty_pixels(tmp_path / "pixels.h5", meta, (nx, ny))
    for x in (0, nx - 1):
        for y in (0, ny - 1):
            region = CircularRegion(*(float(v) for v in sky.pixel_to_world(x, y)), 0.03 / 3600)
            for select in ("corners", "overlap"):
                (exposure,) = make_plan(store, meta, region, select=select).exposures
                assert exposure.superpixels.tolist() == [[x // 8, y // 8]]


def test_a_region_over_the_edge_or_larger_than_the_detector_is_not_missed(tmp_path: Path) -> None:
    # forcepho asks whether a corner of the region's bounding box is on the detector.
    header = tan_header(*CENTRE, shape=(64, 64))
    sky = SkyWCS.from_header(header)
    meta = meta_of([("F200W", "e1", header)])
    store = empty_pixels(tmp_path / "pixels.h5", meta, (64, 64))
    assert make_plan(store, meta, CircularRegion(*CENTRE, 0.1)).n_pixels == 64 * 64
    beside = CircularRegion(*(float(v) for v in sky.pixel_to_world(-30.0, 32.0)), 40 * 0.06 / 3600)
    assert 0 < make_plan(store, meta, beside).n_superpixels < 8 * 3


@pytest.mark.parametrize("centre", [(0.0, 5.0), (359.9999, -3.0), (77.0, 89.9995), (5.0, -90.0)])
def test_hundreds_of_exposures_anywhere_on_the_sky(
    centre: tuple[float, float], tmp_path: Path, long_form: bool
) -> None:
    exposures = dithered(800 if long_form else 110, centre, (64, 64), seed=9)
    meta = meta_of(exposures)
    store = empty_pixels(tmp_path / "pixels.h5", meta, (64, 64))
    region = CircularRegion(*centre, 0.7 / 3600)
    plan = make_plan(store, meta, region, ["F200W", "F090W"])
    expected = []
    for band in ("F200W", "F090W"):
        for _, expID, header in (e for e in exposures if e[0] == band):
            corners = np.stack(np.meshgrid([0, 7], [0, 7]), axis=-1).reshape(-1, 2)
            grid = 8 * np.stack(np.meshgrid(*[np.arange(8)] * 2, indexing="ij"), axis=-1)
            at = grid[:, :, None, :] + corners
            sky = SkyWCS.from_header(header)
            taken = np.transpose(region.contains(at[..., 0], at[..., 1], sky))
            if len(taken):
                expected.append((band, expID, taken.tolist()))
    found = [(e.band, e.expID, e.superpixels.tolist()) for e in plan.exposures]
    assert found == expected
    assert len(found) > 100


def test_gwcs_and_fits_exposures_share_a_plan(tmp_path: Path) -> None:
    shape = (128, 96)
    meta = meta_of([("F200W", "a", tan_header()), ("F200W", "b", tan_header())])
    store = empty_pixels(tmp_path / "pixels.h5", meta, shape)
    gwcs = sky_gwcs(shape=shape)  # the same place, another roll angle
    x, y = 100.0, 20.0
    ra, dec = (float(v) for v in SkyWCS.from_gwcs(gwcs).pixel_to_world(x, y))
    region = CircularRegion(ra, dec, 0.2 / 3600)
    meta.wcs["F200W"]["b"] = gwcs
    by_fits, by_gwcs = make_plan(store, meta, region).exposures
    at = SkyWCS.from_header(meta.headers["F200W"]["a"]).world_to_pixel(ra, dec)
    assert (by_fits.expID, by_gwcs.expID) == ("a", "b")
    assert [int(v) // 8 for v in at] in by_fits.superpixels.tolist()
    assert [int(x) // 8, int(y) // 8] in by_gwcs.superpixels.tolist()
    assert by_fits.superpixels.tolist() != by_gwcs.superpixels.tolist()


# --- refusals ------------------------------------------------------------------------------------


def test_what_is_no_region_is_refused(golden_stores: tuple[PixelStore, MetaStore]) -> None:
    with pytest.raises(RegionError, match="a tuple of 2 is no region; expected"):
        make_plan(*golden_stores, CENTRE)  # type: ignore[arg-type]


def test_stores_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    meta = meta_of([("F200W", "e1", tan_header(shape=(64, 64)))])
    region = CircularRegion(*CENTRE, 0.001)
    lacking = empty_pixels(tmp_path / "a.h5", MetaStore(), (64, 64))
    with pytest.raises(NotInStoreError, match=r"a\.h5: has no exposure F200W/e1"):
        make_plan(lacking, meta, region)
    larger = empty_pixels(tmp_path / "b.h5", meta, (64, 128))
    with pytest.raises(StoreConflictError, match=r"F200W/e1 has 64 x 64 .*b\.h5 have 64 x 128"):
        make_plan(larger, meta, region)


def test_an_exposure_that_went_since_the_last_plan_is_noticed(tmp_path: Path) -> None:
    meta = meta_of([("F200W", name, tan_header(shape=(64, 64))) for name in ("e1", "e2")])
    store = empty_pixels(tmp_path / "pixels.h5", meta, (64, 64))
    region = CircularRegion(*CENTRE, 0.001)
    assert make_plan(store, meta, region).n_exp == 2
    with h5py.File(tmp_path / "pixels.h5", "a") as file:
        del file["F200W/e1"]
    assert make_plan(store, meta, region).n_exp == 2  # of the state that is open
    with pytest.raises(StoreConflictError, match="open it again"):
        store.read_window("F200W", "e2", (0, 1, 0, 1))
    with pytest.raises(NotInStoreError, match="F200W/e1"):
        make_plan(PixelStore(tmp_path / "pixels.h5", mode="r"), meta, region)
    (tmp_path / "pixels.h5").unlink()
    with pytest.raises(MissingStoreError, match=r"pixels\.h5"):
        store.read_window("F200W", "e2", (0, 1, 0, 1))


def test_more_bands_than_kernels_know_are_refused_with_the_figure(tmp_path: Path) -> None:
    names = [f"F{k:03d}W" for k in range(31)]
    meta = meta_of((band, "e1", tan_header(shape=(64, 64))) for band in names)
    store = empty_pixels(tmp_path / "pixels.h5", meta, (64, 64))
    region = CircularRegion(*CENTRE, 0.0001)
    assert make_plan(store, meta, region, names[:30]).n_bands == 30
    with pytest.raises(PlanError, match=r"n_bands = 31 .* allows 0 to 30"):
        make_plan(store, meta, region)


def test_more_pixels_than_int32_counts_are_refused_with_the_figure() -> None:
    side = 1 << 14
    all_of_it = np.indices((side // 8,) * 2).reshape(2, -1).T
    exposure = ExposurePlan("F200W", "e1", (side, side), all_of_it)
    region = CircularRegion(*CENTRE, 1.0)
    largest = PatchPlan(region, ("F200W",), (exposure,) * 7, 8, "corners")
    assert largest.arena_layout(1, 1, 1).n_pixels == 7 * 2**28
    over = PatchPlan(region, ("F200W",), (exposure,) * 8, 8, "corners")
    with pytest.raises(PlanError, match=r"n_pixels = 2147483648 .* allows 0 to 2147483647"):
        over.arena_layout(1, 1, 1)


def test_sources_have_no_limit_but_memory(golden_plan: PatchPlan) -> None:
    assert golden_plan.arena_layout(200, 9, 648).n_src == 200
    with pytest.raises(PlanError, match="n_src = -1"):
        golden_plan.arena_layout(-1, 9, 648)


class SmallBackend(CpuBackend):
    """A host with so much memory free."""

    free = 0

    def has_free(self, n_bytes: int) -> bool:
        return n_bytes <= self.free

    def memory_state(self) -> MemoryState:
        return MemoryState(self.free, 1 << 40, 0)


def test_a_patch_over_the_backends_memory_is_refused_with_the_figures(
    golden_stores: tuple[PixelStore, MetaStore], golden_plan: PatchPlan
) -> None:
    backend = SmallBackend()
    needed = golden_plan.arena_layout(0, 0, 0).total_bytes
    backend.free = needed
    assert make_plan(*golden_stores, golden_plan.region, backend=backend) == golden_plan
    backend.free = needed - 1
    with pytest.raises(PlanError, match=f"needs {needed:,} bytes, but the host.*{needed - 1:,} of"):
        make_plan(*golden_stores, golden_plan.region, backend=backend)
    larger = golden_plan.arena_layout(3, 9, 648)
    backend.free = needed
    with pytest.raises(PlanError, match=f"needs {larger.total_bytes:,} bytes"):
        golden_plan.require_memory(backend, larger)


# --- a plan is a value ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "region",
    [
        CircularRegion(*CENTRE, 0.0003),
        RectangularRegion(53.1597, 53.1603, -27.7903, -27.7897),
        PolygonRegion((53.1597, 53.1603, 53.16), (-27.7903, -27.7903, -27.7897)),
    ],
)
def test_plans_compare_and_pickle_as_values(
    golden_stores: tuple[PixelStore, MetaStore], region: CircularRegion
) -> None:
    plan = make_plan(*golden_stores, region)
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan == make_plan(*golden_stores, region)
    assert not again.exposures[0].superpixels.flags.writeable
    other = make_plan(*golden_stores, region, select="overlap")
    assert other != plan
    assert other.exposures[1] != plan.exposures[1]
    assert plan != "a plan"
    assert plan.exposures[0] != "an exposure"


def test_the_superpixels_of_a_plan_cannot_be_changed(golden_plan: PatchPlan) -> None:
    superpixels = golden_plan.exposures[0].superpixels
    assert (superpixels.dtype, superpixels.shape[1:]) == (np.dtype(np.int32), (2,))
    with pytest.raises(ValueError, match="read-only"):
        superpixels[0] = 0
    given = np.array([[1, 2], [3, 4]], np.int32)
    exposure = ExposurePlan("F200W", "e1", (64, 64), given)
    given[0] = 5
    assert exposure.superpixels.tolist() == [[1, 2], [3, 4]]


def test_a_plan_prints_what_will_be_read(golden_plan: PatchPlan) -> None:
    lines = str(golden_plan).splitlines()
    assert len(lines) == 2 + 6 + 1
    assert lines[0] == f"{golden_plan.region!r}, super-pixels chosen by corners"
    assert lines[1] == f"{'exposure':<18}  {'super-pixels':>12}  {'pixels':>12}  window x, y"
    assert {line.index("  ") for line in lines[2:-1]} == {18}
    x0, x1, y0, y1 = golden_plan.exposures[1].window
    assert lines[3].split() == [
        "F090W/exp_f090w_01", "92", "5,888", f"{x0}:{x1},", f"{y0}:{y1}",
    ]  # fmt: skip
    assert lines[-1] == (
        "6 exposures in 3 bands (F090W, F200W, F444W): 34,752 pixels, 278,016 bytes to read"
    )
    assert golden_plan.pixel_bytes == 34752 * 8
    assert repr(golden_plan).endswith("6 exposures in F090W, F200W, F444W, 34,752 pixels>")


def test_the_window_of_an_exposure_is_the_smallest_that_holds_its_superpixels() -> None:
    exposure = ExposurePlan("F200W", "e1", (64, 64), np.array([[2, 5], [3, 1], [6, 4]]))
    assert tuple(exposure.window) == (2, 7, 1, 6)
