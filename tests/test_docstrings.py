"""Public docstrings follow the numpydoc standard: parameters, returns and errors are named."""

import dataclasses
import importlib
import importlib.util
import inspect
from collections.abc import Iterator

import pytest
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate

import fpgpu
from tests.public_api import MODULES

# What is not asked of a docstring here: examples, see-also and extended summaries stand where they
# help; a return value may have a name (RT02) and need no sentence beyond it; descriptions need no
# full stop or capital; the summary stands on the line of the quotes; it may describe what a
# property is, or run over two lines.
NOT_ASKED = {
    "ES01", "EX01", "GL01", "GL02", "PR06", "PR07", "PR08", "PR09", "RT02", "RT03", "RT04", "RT05",
    "SA01", "SS05", "SS06", "YD01",
}  # fmt: skip


def public_names() -> Iterator[str]:
    for name in fpgpu.__all__:
        value = getattr(fpgpu, name)
        if callable(value) and not inspect.ismodule(value):
            yield from with_members(f"{value.__module__}.{value.__qualname__}", value)
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            value = getattr(module, name)
            ours = str(getattr(value, "__module__", "")).startswith("fpgpu")
            if ours and (inspect.isclass(value) or inspect.isfunction(value)):
                yield from with_members(f"{value.__module__}.{value.__qualname__}", value)


def with_members(path: str, value: object) -> Iterator[str]:
    yield path
    if inspect.isclass(value):
        for name, member in vars(value).items():
            inner = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if not name.startswith("_") and (
                inspect.isfunction(inner) or isinstance(inner, property)
            ):
                yield f"{path}.{name}"


@pytest.mark.parametrize("path", sorted(set(public_names())))
def test_docstring(path: str) -> None:
    value = resolve(path)
    not_asked = NOT_ASKED | ({"PR01"} if fields_are_attributes(value) else set())
    found = [(code, what) for code, what in validate(path)["errors"] if code not in not_asked]
    assert not found


def resolve(path: str) -> object:
    module, *names = path.split(".")
    while importlib.util.find_spec(f"{module}.{names[0]}"):
        module = f"{module}.{names.pop(0)}"
        if "." in module and not hasattr(importlib.import_module(module), "__path__"):
            break
    value: object = importlib.import_module(module)
    for name in names:
        value = inspect.getattr_static(value, name)
    return value


def fields_are_attributes(value: object) -> bool:
    """A class of plain fields may list them as attributes, which they are, if it lists all."""
    if dataclasses.is_dataclass(value):
        fields = {field.name for field in dataclasses.fields(value)}
    else:
        fields = set(getattr(value, "_fields", ()))
    listed = {
        name.strip()
        for parameter in NumpyDocString(inspect.getdoc(value) or "")["Attributes"]
        for name in parameter.name.split(",")
    }
    return bool(fields) and fields <= listed
