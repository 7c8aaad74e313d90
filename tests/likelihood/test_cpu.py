"""The likelihood on the host: the judge's numbers, for any number of threads, in any process."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpgpu.jit import compiled_module
from fpgpu.layout import PATCH_ARRAYS, SOURCE_DTYPE
from fpgpu.likelihood import cpu
from fpgpu.likelihood.cpu import HostLikelihood, n_threads, set_threads
from tests.likelihood.random_scenes import random_scene
from tests.likelihood.superpixel_scenes import assert_as_judged, scene_of, superpixel_scene

# Where scenes are held against bounds they are the same each time: in one of some ten thousand all
# derivatives by a parameter happen to cancel, and no single precision is within 1e-4 of nothing.
SEEDS = st.integers(0, 2**32)


@pytest.fixture(autouse=True)
def usual_threads() -> Iterator[None]:
    yield
    set_threads(None)


def judge(arrays: dict[str, Any], scene: Any, psf_per_source: bool = True) -> None:
    """Evaluate a scene and hold it against the judge."""
    found = HostLikelihood(arrays).evaluate(
        scene[None], psf_per_source=psf_per_source, residual=True
    )
    assert (found.chi2.dtype, found.derivatives.dtype) == (np.float64, np.float32)
    assert_as_judged(
        arrays,
        scene,
        found.chi2[0],
        found.derivatives[0],
        arrays["residual"],
        psf_per_source=psf_per_source,
    )


# --- the judge's numbers ---------------------------------------------------------------------


def test_the_golden_patch_has_forcephos_answers(golden: Path) -> None:
    with np.load(golden / "tiny" / "patch_1p2arcsec_3src.npz") as file:
        arrays = {name: file[name] for name in (*PATCH_ARRAYS, "n_sources", "n_radii")}
        proposal, chi2, slopes = file["proposal"], file["chi2"], file["chi2_derivs"]
    residual = arrays["residual"].copy()
    found = HostLikelihood(arrays).evaluate(proposal[None], psf_per_source=False, residual=True)
    np.testing.assert_allclose(found.chi2[0], chi2, rtol=1e-5)
    limit = 1e-4 * abs(slopes).max(axis=1, keepdims=True)
    assert (abs(found.derivatives[0] - slopes) <= limit).all()
    peak = abs(arrays["data"]).max()
    np.testing.assert_allclose(arrays["residual"], residual, rtol=0, atol=1e-5 * peak)
    judge(arrays, proposal)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=SEEDS, psf_per_source=st.booleans())
def test_superpixels(seed: int, psf_per_source: bool) -> None:
    judge(*superpixel_scene(np.random.default_rng(seed)), psf_per_source)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_pixels_that_lie_anywhere(seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays, scene = superpixel_scene(rng)
    order = rng.permutation(64)
    for name in ("data", "ierr", "xpix", "ypix"):
        arrays[name] = arrays[name].reshape(-1, 64)[:, order].reshape(-1)
    arrays["xpix"] += rng.uniform(-0.2, 0.2, len(order)).astype("f4")[0]
    arrays["exposure_N"] -= np.minimum(arrays["exposure_N"], rng.integers(0, 64))
    judge(arrays, scene)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=SEEDS, psf_per_source=st.booleans())
def test_stamps_that_are_no_superpixels(seed: int, psf_per_source: bool) -> None:
    arrays, scene = random_scene(np.random.default_rng(seed))
    single = {name: np.ascontiguousarray(arrays[name], PATCH_ARRAYS[name]) for name in PATCH_ARRAYS
              if name != "residual"}  # fmt: skip
    single["residual"] = np.zeros_like(single["data"])
    counts = {name: arrays[name] for name in ("n_sources", "n_radii")}
    judge(single | counts, scene.astype(SOURCE_DTYPE), psf_per_source)


@pytest.mark.parametrize(("n_sources", "n_psf"), [(1, 1), (1, 99), (31, 9), (200, 9), (40, 99)])
def test_any_number_of_sources_and_gaussians(n_sources: int, n_psf: int) -> None:
    rng = np.random.default_rng(n_sources + n_psf)
    judge(*superpixel_scene(rng, n_sources=n_sources, n_psf=(n_psf, 2), n_superpixels=6))


@pytest.mark.parametrize("width", [0.05, 0.5, 30.0, 300.0])
def test_sources_from_less_than_a_pixel_to_more_than_the_patch(width: float) -> None:
    judge(*superpixel_scene(np.random.default_rng(3), width=width))


@pytest.mark.parametrize("spread", [0.0, 30.0, 90.0])
def test_sources_at_the_edge_and_outside(spread: float) -> None:
    judge(*superpixel_scene(np.random.default_rng(4), spread=spread, n_sources=8))


def test_pixels_without_weight_and_exposures_without_pixels() -> None:
    arrays, scene = superpixel_scene(np.random.default_rng(5), n_exp=(3, 2), n_superpixels=4)
    arrays["ierr"][:64] = 0
    arrays["exposure_N"][1] = 0
    judge(arrays, scene)


def test_works_of_many_pixels_are_cut_and_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "WORK_PIXELS", 192)
    judge(*superpixel_scene(np.random.default_rng(6), n_superpixels=20))


def test_a_patch_without_sources_is_its_data() -> None:
    arrays, scene = superpixel_scene(np.random.default_rng(7), n_sources=0)
    found = HostLikelihood(arrays).evaluate(scene[None], psf_per_source=True, residual=True)
    assert found.chi2.tolist() == [[0.0, 0.0]]
    assert found.derivatives.shape == (1, 2, 0, 7)
    np.testing.assert_array_equal(arrays["residual"], arrays["data"])


@pytest.mark.parametrize(("name", "value"), [("ra", np.nan), ("q", 0.0), ("fluxes", np.inf)])
def test_what_is_no_source_gives_nan_as_forcephos_kernel_does(name: str, value: float) -> None:
    arrays, scene = superpixel_scene(np.random.default_rng(8))
    bad = scene.copy()
    bad[name][1] = value
    found = HostLikelihood(arrays).evaluate(np.stack([scene, bad]), psf_per_source=True)
    assert np.isfinite(found.chi2[0]).all()
    assert np.isnan(found.chi2[1, 0])
    assert np.isnan(found.derivatives[1, 0]).all()


# --- the same bits, however it is asked ------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n_batch=st.integers(1, 9))
def test_a_batch_gives_the_bits_of_single_calls(seed: int, n_batch: int) -> None:
    rng = np.random.default_rng(seed)
    arrays, _ = superpixel_scene(rng)
    scenes = np.stack([scene_of(rng, 3) for _ in range(n_batch)])
    host = HostLikelihood(arrays)
    together = host.evaluate(scenes, psf_per_source=True)
    for k, scene in enumerate(scenes):
        alone = host.evaluate(scene[None], psf_per_source=True)
        np.testing.assert_array_equal(together.chi2[k], alone.chi2[0])
        np.testing.assert_array_equal(together.derivatives[k], alone.derivatives[0])


def test_a_batch_too_large_to_sum_at_once_gives_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(9)
    arrays, _ = superpixel_scene(rng)
    scenes = np.stack([scene_of(rng, 3) for _ in range(7)])
    whole = HostLikelihood(arrays).evaluate(scenes, psf_per_source=True)
    monkeypatch.setattr(cpu, "MOST_PARTIAL_SUMS", 150)
    found = HostLikelihood(arrays).evaluate(scenes, psf_per_source=True)
    np.testing.assert_array_equal(found.chi2, whole.chi2)
    np.testing.assert_array_equal(found.derivatives, whole.derivatives)


@pytest.mark.parametrize("number", [1, 2, 3, 7, 40])
def test_the_number_of_threads_changes_no_bit(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "WORTH_A_THREAD", 0)
    monkeypatch.setattr(cpu, "WORK_PIXELS", 64)
    arrays, scene = superpixel_scene(np.random.default_rng(10), n_superpixels=20)
    host = HostLikelihood(arrays)
    set_threads(1)
    alone = host.evaluate(scene[None], psf_per_source=True)
    set_threads(number)
    found = host.evaluate(scene[None], psf_per_source=True, residual=True)
    np.testing.assert_array_equal(found.chi2, alone.chi2)
    np.testing.assert_array_equal(found.derivatives, alone.derivatives)
    assert np.isfinite(arrays["residual"]).all()


def test_threads_that_evaluate_at_the_same_time_do_not_disturb_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu, "WORTH_A_THREAD", 0)
    monkeypatch.setattr(cpu, "WORK_PIXELS", 64)
    set_threads(3)
    cases = [superpixel_scene(np.random.default_rng(seed)) for seed in range(8)]
    hosts = [HostLikelihood(arrays) for arrays, _ in cases]

    def evaluate(k: int) -> Any:
        return hosts[k].evaluate(cases[k][1][None], psf_per_source=True).derivatives

    expected = [evaluate(k) for k in range(8)]
    wrong: list[int] = []

    def often(k: int) -> None:
        for _ in range(20):
            if not np.array_equal(evaluate(k), expected[k]):
                wrong.append(k)

    threads = [threading.Thread(target=often, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


SCRIPT = """
import os, sys
import numpy as np
from fpgpu.likelihood import cpu
from tests.likelihood.superpixel_scenes import superpixel_scene
cpu.WORTH_A_THREAD, cpu.WORK_PIXELS = 0, 64
cpu.set_threads(2)
arrays, scene = superpixel_scene(np.random.default_rng(11))
def evaluate():
    return cpu.HostLikelihood(arrays).evaluate(scene[None], psf_per_source=True).chi2.tolist()
"""


def run(code: str, *before: str, **environment: str) -> str:
    """Run the script and more in a process of its own."""
    path = str(Path(__file__).parents[2])
    done = subprocess.run(
        [*before, sys.executable, "-P", "-c", SCRIPT + code],
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_forked_process_has_threads_of_its_own() -> None:
    code = """
before = evaluate()
pid = os.fork()
if pid == 0:
    os._exit(0 if evaluate() == before else 3)
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status), evaluate() == before)
"""
    assert run(code) == "0 True"


def test_ranks_of_mpi_give_the_same() -> None:
    pytest.importorskip("mpi4py", reason="needs mpi4py, of the extra mpi")
    code = """
from mpi4py import MPI
found = MPI.COMM_WORLD.allgather(evaluate())
if MPI.COMM_WORLD.rank == 0:
    print(len(found), found[0] == found[1])
"""
    mpiexec = Path(sys.executable).with_name("mpiexec")
    assert run(code, str(mpiexec), "-n", "2") == "2 True"


@pytest.fixture
def read_only(tmp_path: Path) -> str:
    """The package where no compiled code can be put beside it; root may write anywhere else."""
    installed = Path(cpu.__file__).parents[1]
    shutil.copytree(installed, tmp_path / "fpgpu", ignore=lambda *_: ["__pycache__"])
    (tmp_path / "fpgpu" / "likelihood" / "__pycache__").touch()
    return f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"


def test_compiled_code_is_kept_in_the_users_cache_where_the_package_cannot_be_written(
    tmp_path: Path, read_only: str
) -> None:
    run("evaluate()", PYTHONPATH=read_only, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert list((tmp_path / "cache").rglob("compiled.evaluate_works*.nbc"))


def test_it_runs_where_nothing_can_be_cached(tmp_path: Path, read_only: str) -> None:
    (tmp_path / "cache").touch()
    code = "print(np.isfinite(evaluate()).all())"
    environment = {"PYTHONPATH": read_only, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert run(code, **environment) == "True"


def test_without_numba_numpy_answers_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "fpgpu.likelihood.compiled", raising=False)
    compiled_module.cache_clear()
    try:
        judge(*superpixel_scene(np.random.default_rng(12), n_superpixels=3))
    finally:
        compiled_module.cache_clear()
    assert "Numba cannot be imported" in caplog.text


def test_threads_follow_the_affinity_the_environment_and_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("FPGPU_THREADS", raising=False)
    assert n_threads() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("FPGPU_THREADS", "5")
    assert n_threads() == 5
    set_threads(3)
    assert n_threads() == 3
    with pytest.raises(ValueError, match="0 threads; give at least 1"):
        set_threads(0)
