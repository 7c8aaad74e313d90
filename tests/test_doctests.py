"""The examples in docstrings run, in the folder of a demo."""

import doctest
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table

import fpgpu

MODULES = [
    "fpgpu.backends.choose",
    "fpgpu.catalog",
    "fpgpu.depth",
    "fpgpu.errors",
    "fpgpu.html",
    "fpgpu.ingest.exposure",
    "fpgpu.ingest.inputs",
    "fpgpu.ingest.memory",
    "fpgpu.ingest.naming",
    "fpgpu.ingest.pipeline",
    "fpgpu.patch.device",
    "fpgpu.patch.plan",
    "fpgpu.paths",
    "fpgpu.plots.exposures",
    "fpgpu.plots.pixels",
    "fpgpu.plots.regions",
    "fpgpu.plots.surveys",
    "fpgpu.psf.fit",
    "fpgpu.psf.images",
    "fpgpu.psf.profiles",
    "fpgpu.sky.angles",
    "fpgpu.sky.footprints",
    "fpgpu.sky.regions",
    "fpgpu.sky.wcs",
    "fpgpu.stores.meta",
    "fpgpu.stores.pixel",
    "fpgpu.stores.psf",
    "fpgpu.survey",
]


@pytest.fixture(scope="module")
def names(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the examples may speak of: an open survey, a region in it, its sources, and a patch."""
    region = fpgpu.CircularRegion(53.16, -27.79, 1 * u.arcsec)
    catalog = Table.read(demo_folder / "sources.fits")
    with (
        fpgpu.open(demo_folder / "stores", backend="cpu") as survey,
        survey.patch(region, catalog) as patch,
    ):
        yield {
            "fpgpu": fpgpu,
            "np": np,
            "u": u,
            "survey": survey,
            "region": region,
            "catalog": catalog,
            "patch": patch,
            "tmp_path": tmp_path_factory.mktemp("examples"),
        }


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(
    name: str, names: dict[str, Any], demo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(demo_folder)
    module = importlib.import_module(name)
    done = doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS)
    assert done.attempted > 0
    assert done.failed == 0


@pytest.mark.parametrize("name", sorted(set(fpgpu.__all__) - {"__version__"}))
def test_every_public_name_has_an_example(name: str) -> None:
    value = getattr(fpgpu, name)
    if name == "ingest":
        value = importlib.import_module("fpgpu.ingest.pipeline").ingest
    if callable(value):
        assert "Examples\n--------" in (inspect.getdoc(value) or "")
        assert value.__module__ in MODULES
