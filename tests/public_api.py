"""Every public name with its signature: what users' code may rely on, listed in one place.

``public_api.txt`` holds the list as it was agreed; ``python -m tests.public_api`` writes it anew.
"""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import fpgpu

LISTED = Path(__file__).with_name("public_api.txt")

# Modules whose ``__all__`` is meant for users, beside the names of the package itself.
MODULES = [
    "fpgpu.backends.base",
    "fpgpu.calibration",
    "fpgpu.catalog",
    "fpgpu.doctor",
    "fpgpu.errors",
    "fpgpu.fluxes",
    "fpgpu.forcepho.device",
    "fpgpu.forcepho.packing",
    "fpgpu.ingest.pipeline",
    "fpgpu.ingest.readers",
    "fpgpu.ingest.record",
    "fpgpu.patch.file",
    "fpgpu.likelihood.cpu",
    "fpgpu.likelihood.evaluation",
    "fpgpu.likelihood.reference",
    "fpgpu.likelihood.scene",
    "fpgpu.patch.plan",
    "fpgpu.psf",
    "fpgpu.patch.timing",
    "fpgpu.plots",
    "fpgpu.stores.summary",
    "fpgpu.stores.upkeep.forms",
    "fpgpu.stores.upkeep.merge",
    "fpgpu.stores.upkeep.problems",
    "fpgpu.stores.upkeep.remove",
    "fpgpu.stores.upkeep.repair",
    "fpgpu.stores.upkeep.verify",
    "fpgpu.superpixels",
]


def public_api() -> list[str]:
    """One line a name, in order: functions, classes and methods with arguments, errors with bases.

    Annotations are left out, for their text differs from one version of NumPy to the next; mypy
    checks them. A default that is no plain value is written as three dots.
    """
    lines: set[str] = set()
    for module_name in ["fpgpu", "fpgpu.storage", *MODULES]:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            lines.update(_described(f"{module_name}.{name}", getattr(module, name)))
    return sorted(lines)


def _described(path: str, value: object) -> Iterator[str]:
    if inspect.isclass(value):
        yield path + (_arguments(value) if _is_made_by_users(value) else "") + _caught_as(value)
        for owner in value.__mro__:
            if owner.__module__.startswith("fpgpu"):
                for name in vars(owner):
                    if not name.startswith("_"):
                        yield f"{path}.{name}{_member(value, name)}"
    elif inspect.isfunction(value):
        yield path + _arguments(value)
    else:
        yield path


def _caught_as(value: type) -> str:
    """The bases of an exception, by which it is caught."""
    if not issubclass(value, Exception):
        return ""
    return f" is {', '.join(base.__name__ for base in value.__bases__)}"


def _is_made_by_users(value: type) -> bool:
    """Whether a class says itself how it is made, unlike exceptions and protocols."""
    if Protocol in value.__bases__:
        return False
    makers = (value.__init__, value.__new__)
    return any(
        str(getattr(maker, "__module__", "")).startswith(("fpgpu", "namedtuple_"))
        for maker in makers
    )


def _member(owner: type, name: str) -> str:
    member = inspect.getattr_static(owner, name)
    inner = member.__func__ if isinstance(member, classmethod | staticmethod) else member
    return _arguments(inner) if inspect.isfunction(inner) else ""


def _arguments(function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(
            annotation=parameter.empty,
            default=parameter.default if _is_plain(parameter.default) else _Other(),
        )
        for parameter in signature.parameters.values()
    ]
    return str(inspect.Signature(parameters))


class _Other:
    def __repr__(self) -> str:
        return "..."


def _is_plain(default: object) -> bool:
    if type(default) is tuple:
        return all(map(_is_plain, default))
    if default == fpgpu.__version__:
        return False
    return default in (None, inspect.Parameter.empty) or type(default) in (bool, int, float, str)


if __name__ == "__main__":
    LISTED.write_text("\n".join(public_api()) + "\n")
