"""forcepho's models and CPU kernel, on patches of fpgpu and on its own: the same answers."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import tests.forcepho.needs_forcepho  # noqa: F401
from fpgpu.errors import LayoutError
from fpgpu.forcepho import CPUPatch
from fpgpu.forcepho.upstream import forcepho_module, require_same_layout
from fpgpu.layout import PSF_DTYPE
from fpgpu.patch.pack import FORCEPHO_RADII as RADII
from fpgpu.stores.psf import PSFStore

patches = forcepho_module("patches")
CircularRegion = forcepho_module("region").CircularRegion
SHAPES = ("ra", "dec", "q", "pa", "sersic", "rhalf")
PAGE = Path(__file__).parents[2] / "docs" / "forcepho.md"

run_opt = forcepho_module("fitting").run_opt


class ForcephoPatch(patches.StorePatch, patches.CPUPatchMixin):
    """What a user of forcepho has today."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.metastore.populate_wcs()  # else it finds no exposures


@pytest.fixture
def build(stores, answers, request_of, splinedata):
    """Build the golden patch with a class."""

    def build(kind: Any, sourcecat: Any = None, **options: Any) -> Any:
        options |= {"splinedata": splinedata, "spline_smoothing": 0, "return_residual": True}
        patch = kind(**stores, **options)
        patch.build_patch(
            CircularRegion(*answers["region"]),
            sourcecat=sourcecat,
            allbands=request_of["allbands"],
        )
        return patch

    return build


def bounds_around(catalog: Any, bands: list[str]) -> Any:
    """Bounds that hold the sources of a catalogue well inside."""
    reach = {"ra": 3e-5, "dec": 3e-5, "q": 0.2, "pa": 0.6, "sersic": 0.7, "rhalf": 0.05}
    reach |= dict.fromkeys(bands, 400.0)
    bounds = np.zeros(len(catalog), [(name, np.float64, 2) for name in reach])
    for name, width in reach.items():
        bounds[name] = catalog[name][:, None] + [-width, width]
    return bounds


def test_the_layouts_agree() -> None:
    require_same_layout()


class TestGoldenPatch:
    @pytest.mark.parametrize(("kernel", "precision"), [("forcepho", 1e-6), ("fpgpu", 1e-5)])
    def test_the_kernel_finds_the_golden_answers(self, build, answers, kernel, precision) -> None:
        patch = build(CPUPatch, answers["sourcecat"], kernel=kernel)
        patch.send_to_device()
        found = patch.get_proposer().evaluate_proposal(answers["proposal"], patch=patch)
        chi2, derivatives, residuals = found
        np.testing.assert_allclose(chi2, answers["chi2"], rtol=precision)
        largest = np.abs(answers["chi2_derivs"]).max(axis=(0, 1))
        worst = np.abs(derivatives - answers["chi2_derivs"]).max(axis=(0, 1))
        assert (worst <= 10 * precision * largest).all()
        assert [len(residual) for residual in residuals] == answers["exposure_N"].tolist()
        peak = np.abs(answers["residual"]).max()
        np.testing.assert_allclose(
            np.concatenate(residuals), answers["residual"], rtol=0, atol=precision * peak
        )
        patch.return_residual = False
        again = patch.get_proposer().evaluate_proposal(answers["proposal"], patch=patch)
        np.testing.assert_array_equal(again[0], chi2)
        assert len(again) == 2

    def test_a_chain_goes_on_after_nan(self, build, answers) -> None:
        patch = build(CPUPatch, answers["sourcecat"])
        patch.send_to_device()
        lost = answers["proposal"].copy()
        lost["pa"][1] = np.nan
        chi2, derivatives, _ = patch.get_proposer().evaluate_proposal(lost, patch=patch)
        assert np.isnan(chi2).all()
        assert np.isnan(derivatives).all()
        chi2, *_ = patch.get_proposer().evaluate_proposal(answers["proposal"], patch=patch)
        np.testing.assert_allclose(chi2, answers["chi2"], rtol=1e-5)

    def test_only_forcephos_kernel_has_its_limit_of_sources(self, build, answers) -> None:
        many = np.resize(answers["sourcecat"], 31)
        patch = build(CPUPatch, many)
        patch.send_to_device()
        chi2, derivatives, _ = patch.get_proposer().evaluate_proposal(
            np.resize(answers["proposal"], 31), patch=patch
        )
        assert np.isfinite(chi2).all()
        assert derivatives.shape == (3, 31, 7)
        with pytest.raises(LayoutError, match="31 active sources; forcepho's kernel takes 30"):
            build(CPUPatch, many, kernel="forcepho")

    def test_a_kernel_that_is_none_is_refused(self, build) -> None:
        with pytest.raises(LayoutError, match="kernel is 'cuda'; expected 'fpgpu' or 'forcepho'"):
            build(CPUPatch, kernel="cuda")

    def test_a_proposal_for_fewer_sources_is_refused_and_of_more_the_first_are_taken(
        self, build, answers, caplog
    ) -> None:
        patch = build(CPUPatch, answers["sourcecat"])
        patch.send_to_device()
        proposer = patch.get_proposer()
        with pytest.raises(LayoutError, match=r"expected SOURCE_DTYPE of shape \(3,\)"):
            proposer.evaluate_proposal(answers["proposal"][:2], patch=patch)
        chi2, *_ = proposer.evaluate_proposal(np.resize(answers["proposal"], 4), patch=patch)
        np.testing.assert_allclose(chi2, answers["chi2"], rtol=1e-5)
        assert "a proposal of 4 sources, but 3 on the device" in caplog.text

    def test_pixels_are_split_as_forcepho_does(self, build, answers) -> None:
        patch = build(CPUPatch, answers["sourcecat"])
        by_exposure, by_band = patch.split_pix("ierr"), patch.split_band("ierr")
        assert [len(piece) for piece in by_exposure] == answers["exposure_N"].tolist()
        assert [len(piece) for piece in by_band] == answers["band_N_pix"].tolist()


class TestModels:
    def test_subtracting_fixed_sources_leaves_the_same_data(self, build, answers) -> None:
        catalog = answers["sourcecat"]
        left = {}
        for kind in (ForcephoPatch, CPUPatch):
            patch = build(kind)
            patch.subtract_fixed(catalog[:2], active=catalog[2:], maxactive=1)
            left[kind] = patch.retrieve_array("data")
        changed = np.abs(left[CPUPatch] - answers["data"]).max()
        assert changed > 10
        np.testing.assert_allclose(left[CPUPatch], left[ForcephoPatch], atol=1e-5 * changed)

    def test_the_design_matrix_is_forcephos(self, build, answers) -> None:
        catalog = answers["sourcecat"]
        made = {}
        for kind in (ForcephoPatch, CPUPatch):
            patch = build(kind)
            proposer, _ = patch.subtract_fixed(catalog[:1], active=catalog[1:])
            made[kind] = patch.design_matrix(active=catalog[1:], proposer=proposer)
        for ours, theirs in zip(made[CPUPatch][0], made[ForcephoPatch][0], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())

    def test_a_fit_ends_where_forcephos_own_ends_within_its_noise(self, build, answers) -> None:
        catalog, bands = answers["sourcecat"], answers["bandlist"].tolist()
        start = catalog[:2].copy()
        for name, offset in (("ra", 5e-6), ("sersic", 0.2), ("rhalf", 0.01), ("F200W", 80.0)):
            start[name] += offset
        bounds = bounds_around(catalog[:2], bands)
        width = np.concatenate([[np.ptp(row[n]) for n in (*bands, *SHAPES)] for row in bounds])

        def fit(kind: Any, nudge: float = 0.0) -> tuple[Any, float]:
            model, q = build(kind).prepare_model(active=start, fixed=catalog[2:], bounds=bounds)
            z = model.transform.inverse_transform(q) * (1 + nudge)
            result, _ = run_opt(model, model.transform.transform(z), maxiter=12)
            assert result.fun < model.nll(z)[0] - 5, "the fit must have gone somewhere"
            return result.chain[0] / width, result.fun

        ours, our_chi2 = fit(CPUPatch)
        theirs, their_chi2 = fit(ForcephoPatch)
        # Kernels compute in float32: a start that is rounded otherwise ends elsewhere, too.
        others = [fit(ForcephoPatch, nudge)[0] for nudge in (-1e-7, 1e-7)]
        noise = max(np.abs(other - theirs).max() for other in others)
        assert noise < 0.01
        assert np.abs(ours - theirs).max() < max(2 * noise, 1e-5)
        assert our_chi2 == pytest.approx(their_chi2, rel=1e-5)

    def test_a_second_model_starts_from_the_data_of_the_store(self, build, answers) -> None:
        catalog = answers["sourcecat"]
        patch = build(CPUPatch)
        likelihoods = []
        for _ in range(2):
            model, q = patch.prepare_model(active=catalog[:2], fixed=catalog[2:])
            likelihoods.append(model.lnprob(q))
        assert likelihoods[0] == likelihoods[1]


def test_the_example_of_the_page_runs(
    answers, golden: Path, splinedata: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example, _ = re.findall(r"```py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    catalog = answers["sourcecat"]
    bounds = bounds_around(catalog, answers["bandlist"].tolist())
    (tmp_path / "stores").symlink_to(golden / "tiny")
    (tmp_path / "sersic_splinedata.h5").symlink_to(splinedata)
    monkeypatch.chdir(tmp_path)
    example = example.replace("run_opt(model, q)", "run_opt(model, q, maxiter=2)")
    names = {"catalog": catalog, "bounds": bounds}
    exec(compile(example, "docs/forcepho.md", "exec"), names)
    assert np.isfinite(names["result"].fun)


class TestInsteadOfFitsPatch:
    """What the page says takes the place of forcepho's FITSPatch, with its demos' images."""

    SIZE = 64
    SCALE = 0.03 / 3600

    @pytest.fixture
    def images(self, tmp_path: Path) -> list[str]:
        """Two bands of one field: SCI and ERR, FILTER and a WCS in both, no unit."""
        wcs = WCS(naxis=2)
        wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [53.0, -27.0]
        wcs.wcs.crpix, wcs.wcs.cdelt = [32.5, 32.5], [-self.SCALE, self.SCALE]
        rng = np.random.default_rng(3)
        names = []
        for band in ("BLUE", "RED"):
            header = wcs.to_header()
            header["FILTER"] = band
            sci = rng.normal(0.01, 0.01, (self.SIZE, self.SIZE))
            err = np.full_like(sci, 0.01)
            sci[5, 7], err[9, 11] = np.nan, np.inf
            hdus = [fits.ImageHDU(sci, header, "SCI"), fits.ImageHDU(err, header, "ERR")]
            names.append(str(tmp_path / f"{band.lower()}_pair.fits"))
            fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(names[-1])
        return names

    def test_a_fit_to_all_of_the_images_is_the_same(
        self, images, splinedata, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dtype = [(name, np.float64) for name in (*SHAPES, "BLUE", "RED")]
        rows = [
            (53.0 + k * 1e-5, -27.0 - k * 2e-5, 0.9, 0.4 + k, 2.0, 0.2, 1.0, 2.0) for k in (0, 1)
        ]
        catalog = np.array(rows, dtype)
        psfs = tmp_path / "psf.h5"
        mixture = np.zeros((1, len(RADII)), PSF_DTYPE)
        mixture["amp"], mixture["Cxx"], mixture["Cyy"] = 1.0, 6.0, 6.0
        mixture["sersic_bin"] = np.arange(len(RADII))
        for band in ("BLUE", "RED"):
            PSFStore(psfs).add_psf(band, mixture)

        class Patcher(patches.FITSPatch, patches.CPUPatchMixin):
            pass

        common = {"psfstore": str(psfs), "splinedata": splinedata, "return_residual": True}
        theirs = Patcher(fitsfiles=images, sci_ext="SCI", unc_ext="ERR", **common)
        _, example = re.findall(r"```py\n(.*?)```", PAGE.read_text(), re.DOTALL)
        monkeypatch.chdir(tmp_path)
        names = {"image_names": images, "psfstorefile": str(psfs), "splinedatafile": splinedata}
        exec(compile(example, "docs/forcepho.md", "exec"), names)
        ours = names["patcher"]

        region = CircularRegion(53.0, -27.0, 0.75 * self.SIZE * self.SCALE)
        found = []
        for patch in (ours, theirs):
            patch.build_patch(region, None, allbands=["BLUE", "RED"])
            model, q = patch.prepare_model(active=catalog)
            found.append((model.lnprob(q), model.lnprob_grad(q)))
        assert ours.npix == theirs.npix == 2 * self.SIZE**2
        assert [Path(path).stem for path in theirs.epaths] == ["blue_pair", "red_pair"]
        assert ours.epaths == ["BLUE/blue_pair", "RED/red_pair"]
        assert np.sort(ours.ierr).tolist() == np.sort(theirs.ierr).tolist()
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
        scale = np.abs(found[1][1]).max()
        np.testing.assert_allclose(found[0][1], found[1][1], rtol=0, atol=1e-4 * scale)
