"""Whether patches on the device are those of the CPU, in every way in which they are made."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.gpu.job import Job
from benchmarks.inputs.field import Field
from benchmarks.sizes import Size
from fpgpu import CircularRegion, Survey, get_backend
from fpgpu.layout import SOURCE_DTYPE
from fpgpu.patch.device import Patch
from fpgpu.patch.resident import ResidentExposures

__all__ = ["N_SOURCES", "likelihood", "n_batch", "patches", "scene_of", "small_region"]

Arrays = dict[str, Any]

N_SOURCES = 5


def patches(job: Job) -> None:
    """Build the same patches on both, and compare every array of each, bit for bit."""
    field, wrong = job.field(), []
    with field.open(get_backend("cpu")) as plain, field.open(get_backend("cuda")) as survey:
        for name, make in WAYS.items():
            different, n_bytes = [], 0
            for expected, found in zip(make(plain, field), make(survey, field), strict=True):
                different += _different(expected, found)
                n_bytes += sum(np.asarray(array).nbytes for array in found.values())
            job.note(**{name: {"bytes": n_bytes, "different": sorted(set(different))}})
            wrong += [f"{name}: {', '.join(sorted(set(different)))}"] if different else []
    if wrong:
        raise AssertionError(f"arrays differ from those of the CPU: {'; '.join(wrong)}")


def _staged(survey: Survey, field: Field) -> Iterator[Arrays]:
    for radius in field.size.radii:
        with survey.patch(field.region(radius)) as patch:
            yield patch.host_arrays()


def _of_shards(survey: Survey, field: Field) -> Iterator[Arrays]:
    with (
        field.open(survey.backend, sharded=True) as sharded,
        sharded.patch(field.region(), bands=field.bands()) as patch,
    ):
        yield patch.host_arrays()


def _resident(survey: Survey, field: Field) -> Iterator[Arrays]:
    limit = field.size.few * 8 * field.size.side**2
    survey.resident = ResidentExposures(survey.backend, limit)
    for _ in range(2):  # read whole, then found there
        with survey.patch(field.region(), bands=field.bands()) as patch:
            yield patch.host_arrays()
    survey.resident.free()
    survey.resident = None


def _streamed(survey: Survey, field: Field) -> Iterator[Arrays]:
    regions = [field.region(field.size.radius * (1 + k / 10)) for k in range(10)]
    with survey.stream(regions, field.sources(), bands=field.bands()) as stream:
        for item in stream:
            yield item.patch.host_arrays()


def _with_sources(survey: Survey, field: Field) -> Iterator[Arrays]:
    for per_source in (True, False):
        options = {"bands": field.bands(), "psf_per_source": per_source, "max_snr": 5.0}
        with survey.patch(field.region(), field.sources(), **options) as patch:
            yield patch.host_arrays()


def _swapped(survey: Survey, field: Field) -> Iterator[Arrays]:
    """Residuals of a scene without light are the data, so that they are the same on both."""
    with survey.patch(small_region(field), field.sources(), field.bands()) as patch:
        scene = scene_of(patch, field.sources())
        scene["fluxes"] = 0
        patch.evaluate(scene, residual=True)
        residual = patch.retrieve("residual")
        patch.swap()
        yield {**patch.host_arrays(), "the residual before": residual}


WAYS: dict[str, Callable[[Survey, Field], Iterator[Arrays]]] = {
    "staged": _staged,
    "shards": _of_shards,
    "resident": _resident,
    "streamed": _streamed,
    "15 sources": _with_sources,
    "swap": _swapped,
}


def _different(expected: Arrays, found: Arrays) -> list[str]:
    """Name the arrays whose bits are not the same."""
    return [
        name
        for name in expected.keys() | found.keys()
        if name not in expected
        or name not in found
        or np.asarray(expected[name]).tobytes() != np.asarray(found[name]).tobytes()
    ]


def likelihood(job: Job) -> None:
    """Evaluate the same scenes on both; single precision leaves the last digits to each."""
    field = job.field()
    found = {}
    for name in ("cpu", "cuda"):
        with (
            field.open(get_backend(name)) as survey,
            survey.patch(small_region(field), field.sources(N_SOURCES), field.bands()) as patch,
        ):
            scene = scene_of(patch, field.sources(N_SOURCES))
            found[name] = patch.evaluate(scene, residual=True), patch.retrieve("residual")
            if name == "cuda":
                _check_batch(job, patch, scene, found[name][0], n_batch(job.size))
    (cpu, left), (cuda, left_there) = found["cpu"], found["cuda"]
    largest = abs(cpu.derivatives).max(axis=(0, 1))
    off = {
        "chi2": float((abs(cuda.chi2 - cpu.chi2) / abs(cpu.chi2)).max()),
        "derivatives": float((abs(cuda.derivatives - cpu.derivatives) / largest).max()),
        "residual": float(abs(left_there - left).max() / abs(left).max()),
    }
    job.note(relative_differences=off)
    limits = {"chi2": 1e-5, "derivatives": 2e-4, "residual": 1e-5}
    far = [name for name, limit in limits.items() if not off[name] <= limit]
    if far:
        raise AssertionError(f"further from the CPU than {limits}: {', '.join(far)}")


def _check_batch(job: Job, patch: Patch, scene: npt.NDArray[Any], alone: Any, number: int) -> None:
    """Many scenes at once have the bits of one alone."""
    together = patch.evaluate(np.stack([scene] * number))
    same = all(
        (values == single).all() for values, single in zip(together[:2], alone[:2], strict=True)
    )
    job.note(batch_has_the_bits_of_one=bool(same))
    if not same:
        raise AssertionError(f"a batch of {number} has other bits than a scene alone")


def small_region(field: Field) -> CircularRegion:
    """What is evaluated: of small inputs the smallest, as a kernel may be emulated."""
    return field.region(field.size.radii[0] if field.size.name == "small" else None)


def n_batch(size: Size) -> int:
    """How many scenes are evaluated at once."""
    return 2 if size.name == "small" else 64


def scene_of(patch: Patch, catalog: Any) -> npt.NDArray[Any]:
    """Draw the sources of a patch as a scene: their shapes, their light at the sky's level."""
    rng = np.random.default_rng(1)
    rows = patch.sources
    scene = np.zeros(len(rows), SOURCE_DTYPE)
    ra, dec = patch.reference
    scene["ra"] = np.asarray(catalog["ra"])[rows] - ra
    scene["dec"] = np.asarray(catalog["dec"])[rows] - dec
    scene["q"], scene["pa"] = rng.uniform(0.5, 1, len(rows)), rng.uniform(-1, 1, len(rows))
    scene["fluxes"] = rng.uniform(10, 30, (len(rows), 1))
    scene["mixture_amplitudes"] = rng.uniform(0, 0.2, scene["mixture_amplitudes"].shape)
    for name in ("damplitude_drh", "damplitude_dnsersic"):
        scene[name] = rng.normal(0, 0.1, scene[name].shape)
    return scene
