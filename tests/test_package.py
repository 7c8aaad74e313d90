"""The package as a whole: what importing costs, what is public, who may import whom."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import fpgpu
from tests.public_api import LISTED, public_api

PACKAGE = Path(fpgpu.__file__).parent
MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages([str(PACKAGE)], "fpgpu.")
    if not name.endswith("__main__")
)
# Imported only where CuPy is installed; the tests in tests/gpu do that.
NEED_CUPY = {"fpgpu.backends.cuda", "fpgpu.backends.devicememory"}
# They import forcepho; the tests in tests/forcepho do that where it is installed.
NEED_FORCEPHO = {"fpgpu.forcepho", "fpgpu.forcepho.patches", "fpgpu.forcepho.proposer"}

# Floors of the house: a module may import from its own floor and from those below.
FLOORS = [
    {"errors", "html", "jit", "paths", "progress", "threads"},
    {"layout", "planes", "tiling", "superpixels", "fluxes", "calibration", "sky", "catalog"},
    {"backends"},
    {"stores"},
    {"likelihood"},
    {"ingest", "doctor", "patch", "psf", "depth"},
    {"plots", "storage", "survey", "forcepho"},
    {"demo"},
    {"cli", "__main__"},
]


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_importing_loads_neither_cupy_nor_asdf_nor_astropy_nor_matplotlib() -> None:
    heavy = "{'cupy', 'asdf', 'astropy', 'gwcs', 'matplotlib', 'scipy', 'hdf5plugin', 'numba'}"
    loaded = run_python(f"import sys, numpy, h5py, fpgpu; print({heavy} & set(sys.modules))")
    assert loaded == "set()"


def test_the_three_stores_load_neither_cupy_nor_asdf_nor_matplotlib() -> None:
    heavy = "{'cupy', 'asdf', 'matplotlib', 'hdf5plugin', 'numba'}"
    loaded = run_python(f"import sys, fpgpu.storage; print({heavy} & set(sys.modules))")
    assert loaded == "set()"


def test_ingest_loads_no_cluster_before_one_is_asked_for() -> None:
    heavy = "{'cupy', 'dask', 'distributed', 'mpi4py'}"
    loaded = run_python(f"import sys, fpgpu.ingest.pipeline; print({heavy} & set(sys.modules))")
    assert loaded == "set()"


@pytest.mark.parametrize("name", [name for name in fpgpu.__all__ if name != "__version__"])
def test_public_names_load_and_are_documented(name: str) -> None:
    value = getattr(fpgpu, name)
    if callable(value):
        assert value.__doc__
    assert name in dir(fpgpu)


def test_the_public_interface_is_as_agreed() -> None:
    found, listed = set(public_api()), set(LISTED.read_text().splitlines())
    changes = [f"+ {line}" for line in sorted(found - listed)]
    changes += [f"- {line}" for line in sorted(listed - found)]
    assert not changes, (
        "the public interface has changed; where that is wanted, write it into CHANGELOG.md and "
        f"run 'python -m tests.public_api':\n{chr(10).join(changes)}"
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'PixelShop'"):
        _ = fpgpu.PixelShop


def test_storage_has_every_name_of_forcepho_s_module() -> None:
    storage = importlib.import_module("fpgpu.storage")
    assert set(storage.__all__) == {
        "EXP_FMT",
        "ImageNameSet",
        "ImageSet",
        "MetaStore",
        "PSFStore",
        "PSF_COLS",
        "PSF_DTYPE",
        "PixelStore",
        "header_to_id",
    }
    assert all(hasattr(storage, name) for name in storage.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is(name: str) -> None:
    source = (PACKAGE.parent / name.replace(".", "/")).with_suffix(".py")
    if not source.exists():
        source = PACKAGE.parent / name.replace(".", "/") / "__init__.py"
    assert ast.get_docstring(ast.parse(source.read_text()))


@pytest.mark.parametrize(
    "name", [name for name in MODULES if name not in NEED_CUPY | NEED_FORCEPHO]
)
def test_everything_a_module_offers_exists(name: str) -> None:
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public), f"{name}.__all__ names {public}, which does not exist"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_imports_never_run_upwards(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if own == "__init__":
        return
    floor = {name: k for k, names in enumerate(FLOORS) for name in names}
    assert own in floor, f"{own} stands on no floor; add it to FLOORS"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fpgpu."):
            other = (node.module or "").split(".")[1]
            assert floor[other] <= floor[own], f"{path.name} imports {node.module}, a floor above"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_only_the_backends_import_cupy(path: Path) -> None:
    roots = {
        alias.name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    if "backends" not in path.parts:
        assert "cupy" not in roots
