"""Super-pixel order: what goes where, for any shape, dtype and memory layout."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpgpu import tiling
from fpgpu.errors import LayoutError
from fpgpu.superpixels import (
    Window,
    grid_shape,
    images_from_superpixels,
    pixel_coordinates,
    superpixel_corners,
    superpixelize,
)

DTYPES = ["<f4", ">f4", "<f8", ">f8", "<f2", "i2", ">i2", "i4", "u2", "u1"]
LAYOUTS = ["C", "transposed", "cut out", "reversed"]
SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-40, 3.4e38, 1.0]


@pytest.fixture(autouse=True, scope="module")
def small_tiles() -> Any:
    """Make the tiles so small that small images have several, unequal ones, and threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiling, "_LONG", 48)
        patch.setattr(tiling, "_SHORT", 16)
        patch.setattr(tiling, "_SMALLEST_SHARE", 256)
        patch.setattr(tiling, "n_threads", lambda: 3)
        yield


def by_hand(
    im: npt.NDArray[Any], ierr: npt.NDArray[Any], size: int, dtype: npt.DTypeLike
) -> npt.NDArray[Any]:
    """Copy block by block, as forcepho does."""
    nsx, nsy = im.shape[0] // size, im.shape[1] // size
    superpixels = np.empty((nsx, nsy, 2 * size**2), dtype)
    with np.errstate(all="ignore"):
        for i in range(nsx):
            for j in range(nsy):
                block = slice(i * size, (i + 1) * size), slice(j * size, (j + 1) * size)
                superpixels[i, j, : size**2] = im[block].flatten()
                superpixels[i, j, size**2 :] = ierr[block].flatten()
    return superpixels


def in_layout(values: npt.NDArray[Any], layout: str) -> npt.NDArray[Any]:
    """Return the same values, laid out differently in memory."""
    nx, ny = values.shape
    if layout == "transposed":  # as a FITS image comes
        return np.ascontiguousarray(values.T).T
    if layout == "cut out":
        room = np.zeros((2 * nx, ny + 3), values.dtype)
        room[::2, 3:] = values
        return room[::2, 3:]
    if layout == "reversed":
        return np.ascontiguousarray(values[::-1, ::-1])[::-1, ::-1]
    return np.ascontiguousarray(values)


def random_image(shape: tuple[int, int], dtype: str, seed: int) -> npt.NDArray[Any]:
    """Draw bit patterns of all kinds, and the special values of floating-point numbers."""
    rng = np.random.default_rng(seed)
    size = np.dtype(dtype).itemsize * shape[0] * shape[1]
    image = np.frombuffer(rng.bytes(size), dtype).reshape(shape).copy()
    if image.dtype.kind == "f":
        with np.errstate(all="ignore"):
            np.copyto(
                image, rng.choice(SPECIAL, shape).astype(dtype), where=rng.random(shape) < 0.3
            )
    return image


@given(
    nsx=st.integers(1, 9),
    nsy=st.integers(1, 9),
    size=st.sampled_from([1, 4, 8, 16]),
    dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    to=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_pixels_are_only_moved(
    nsx: int,
    nsy: int,
    size: int,
    dtypes: tuple[str, str],
    layouts: tuple[str, str],
    to: type[np.floating[Any]],
    seed: int,
) -> None:
    shape = nsx * size, nsy * size
    im, ierr = (
        in_layout(random_image(shape, dtype, seed + n), layout)
        for n, (dtype, layout) in enumerate(zip(dtypes, layouts, strict=True))
    )
    found = superpixelize(im, ierr, size, dtype=to)
    expected = by_hand(im, ierr, size, to)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("shape", [(64, 96), (8, 8), (16, 2048), (2048, 16)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_survey_shapes_in_every_layout(shape: tuple[int, int], layout: str) -> None:
    im, ierr = (in_layout(random_image(shape, ">f4", seed), layout) for seed in (1, 2))
    assert superpixelize(im, ierr).tobytes() == by_hand(im, ierr, 8, np.float32).tobytes()


@pytest.mark.parametrize("kind", ["sq", "rect"])
def test_forcepho_gives_the_same(golden: Path, kind: str) -> None:
    with np.load(golden / "superpixels.npz") as answers:
        im, ierr = answers[f"{kind}_im"], answers[f"{kind}_ierr"]
        xpix, ypix = pixel_coordinates(im.shape)
        results = {
            "superpixels": superpixelize(im, ierr),
            "xpix": xpix,
            "ypix": ypix,
            "corners": superpixel_corners(im.shape),
        }
        for name, result in results.items():
            expected = answers[f"{kind}_{name}"]
            assert result.dtype == expected.dtype
            np.testing.assert_array_equal(result, expected)


@given(
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.sampled_from([1, 4, 8, 16]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=30, deadline=None)
def test_images_come_back(grid: tuple[int, int], size: int, seed: int) -> None:
    im, ierr = (
        random_image((grid[0] * size, grid[1] * size), "<f4", seed + plane) for plane in (0, 1)
    )
    im_back, ierr_back = images_from_superpixels(superpixelize(im, ierr, size), size)
    assert im_back.tobytes() == im.tobytes()
    assert ierr_back.tobytes() == ierr.tobytes()


def test_the_result_goes_where_it_is_asked_to_go() -> None:
    im, ierr = random_image((16, 24), "<f4", 1), random_image((16, 24), "<f4", 2)
    out = np.zeros((2, 3, 128), np.float32)
    assert superpixelize(im, ierr, out=out) is out
    assert out.tobytes() == by_hand(im, ierr, 8, np.float32).tobytes()


def test_the_images_may_be_read_only() -> None:
    im = np.ones((8, 8), np.float32)
    im.flags.writeable = False
    assert superpixelize(im, im).sum() == 128


@pytest.mark.parametrize("size", [4, 8, 16])
def test_coordinates_lead_back_to_the_pixels(size: int) -> None:
    im = np.random.default_rng(0).normal(size=(32, 48))
    xpix, ypix = pixel_coordinates(im.shape, size)
    flux = superpixelize(im, im, size, dtype=np.float64)[..., : size**2]
    np.testing.assert_array_equal(im[xpix, ypix], flux)


@pytest.mark.parametrize(("side", "dtype"), [(32768, np.int16), (32776, np.int32)])
def test_coordinates_are_wide_enough(side: int, dtype: type[np.signedinteger[Any]]) -> None:
    for shape in (side, 8), (8, side):
        coordinates = pixel_coordinates(shape)
        assert [c.dtype for c in coordinates] == [dtype, dtype]
        assert max(int(c.max()) for c in coordinates) == side - 1
        assert min(int(c.min()) for c in coordinates) == 0


@pytest.mark.parametrize("size", [1, 4, 8])
def test_corners_are_the_extreme_pixels_of_a_super_pixel(size: int) -> None:
    shape = (3 * size, 5 * size)
    xpix, ypix = pixel_coordinates(shape, size)
    corners = superpixel_corners(shape, size)
    low, high = (xpix.min(-1), ypix.min(-1)), (xpix.max(-1), ypix.max(-1))
    counter_clockwise = [(low, low), (high, low), (high, high), (low, high)]
    for corner, (x, y) in enumerate(counter_clockwise):
        np.testing.assert_array_equal(corners[:, :, corner, 0], x[0])
        np.testing.assert_array_equal(corners[:, :, corner, 1], y[1])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((100, 104), r"100 x 104 .* no whole number of 8 x 8 super-pixels; pad it to 104 x 104"),
        ((8,), r"axes \(x, y\), found shape \(8,\)"),
        ((2, 8, 8), r"found shape \(2, 8, 8\)"),
        ((0, 8), "0 x 8 pixels has no pixels"),
    ],
)
def test_images_that_are_no_grid_of_super_pixels_are_refused(
    shape: tuple[int, ...], message: str
) -> None:
    for use in (grid_shape, pixel_coordinates, superpixel_corners):
        with pytest.raises(LayoutError, match=message):
            use(shape)
    with pytest.raises(LayoutError, match=message):
        superpixelize(np.ones(shape), np.ones(shape))


def test_a_super_pixel_has_at_least_one_pixel() -> None:
    with pytest.raises(LayoutError, match="at least 1, not 0"):
        grid_shape((8, 8), 0)


def test_images_that_do_not_fit_together_are_refused() -> None:
    one = np.ones((8, 16))
    with pytest.raises(LayoutError, match=r"ierr has shape \(16, 8\), but im has \(8, 16\)"):
        superpixelize(one, one.T)
    with pytest.raises(LayoutError, match="im has dtype complex128; expected real numbers"):
        superpixelize(one.astype(complex), one)
    with pytest.raises(LayoutError, match="ierr is a masked array"):
        superpixelize(one, np.ma.masked_less(one, 0))


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((1, 1, 128), np.float32), r"out has shape \(1, 1, 128\).* need \(1, 2, 128\)"),
        (np.zeros((1, 2, 256), np.float32)[..., ::2], "C-contiguous"),
        (np.broadcast_to(np.float32(0), (1, 2, 128)), "writeable"),
        (np.zeros((1, 2, 128), bool), "out has dtype bool"),
    ],
)
def test_an_unfit_place_for_the_result_is_refused(out: npt.NDArray[Any], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        superpixelize(np.ones((8, 16)), np.ones((8, 16)), out=out)


def test_only_super_pixels_of_the_given_size_can_be_undone() -> None:
    with pytest.raises(LayoutError, match=r"\(nsx, nsy, 32\) for size 4, found \(1, 2, 128\)"):
        images_from_superpixels(np.zeros((1, 2, 128)), 4)


def test_a_window_selects_super_pixels() -> None:
    window = Window(1, 3, 2, 6).checked((4, 6))
    assert window.shape == (2, 4)
    array = np.arange(24).reshape(4, 6)
    np.testing.assert_array_equal(array[window.slices], array[1:3, 2:6])


@pytest.mark.parametrize("bounds", [(0, 4, 0, 6), (0, 0, 6, 6), (np.int64(1), 2, 0, 1)])
def test_windows_inside_the_grid_pass(bounds: tuple[int, int, int, int]) -> None:
    checked = Window(*bounds).checked((4, 6))
    assert checked == bounds
    assert all(type(bound) is int for bound in checked)


@pytest.mark.parametrize(
    "bounds", [(-1, 2, 0, 1), (0, 5, 0, 1), (2, 1, 0, 1), (0, 1, 0, 7), (0, 1, 3, 2)]
)
def test_windows_outside_the_grid_are_refused(bounds: tuple[int, int, int, int]) -> None:
    with pytest.raises(LayoutError, match="does not lie in a grid of 4 x 6 super-pixels"):
        Window(*bounds).checked((4, 6))


def test_a_window_has_integer_bounds() -> None:
    with pytest.raises(LayoutError, match="integers"):
        Window(0, 1.5, 0, 1).checked((4, 6))  # type: ignore[arg-type]


@pytest.mark.parametrize("x_fastest", [True, False])
@pytest.mark.parametrize("size", [1, 8, 100])
def test_tiles_cover_every_super_pixel_once(size: int, x_fastest: bool) -> None:
    covered = np.zeros((13, 7), int)
    tiles = tiling.split_into_tiles((13, 7), size, x_fastest)
    for tile in tiles:
        covered[tile] += 1
    assert (covered == 1).all()


def test_an_error_in_one_thread_reaches_the_caller() -> None:
    def work(share: Any) -> None:
        for tile in share:
            if tile[1].start > 2:
                raise LayoutError(f"cannot do {tile}")

    tiles = tiling.split_into_tiles((64, 64), 8, x_fastest=True)
    with pytest.raises(LayoutError, match="cannot do"):
        tiling.work_through(work, tiles, 512**2)
