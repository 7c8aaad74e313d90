"""Options of a survey in a YAML file.

Keys at the top hold for all exposures, those of a section for the files that its pattern matches;
later sections go before earlier ones. ``$NAME`` and ``${NAME}`` in text are environment variables,
``$$`` is a dollar sign. Relative paths start from the current folder::

    inputs: ["${SURVEY}/jwst/*_cal.fits", "${SURVEY}/hst"]
    out: ${SURVEY}/stores
    bitmask: [DO_NOT_USE, SATURATED]
    exposures:
      - match: "*_flc.fits"
        bitmask: 4096
        rename_bands: {F606W: ACS_F606W}
      - match: "*nrca3*"
        background: ${SURVEY}/bkg/{stem}_bkg.fits
        background_offset: 0.02

Only plain YAML is read: no tag makes an object. An unknown key is refused with its line.
"""

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from fpgpu.errors import ConfigError, FpgpuError, MissingFileError
from fpgpu.ingest.exposure import FILE_ENDING
from fpgpu.ingest.find import find_inputs
from fpgpu.ingest.inputs import CalibrationOptions, Input

__all__ = ["IngestConfig", "load_config"]

_KINDS: dict[str, tuple[tuple[type, ...], str, str]] = {
    "text": ((str,), "text", "match wcs expID weight pixel_area no_weight"),
    "path": ((str,), "a file name", "out framedir"),
    "paths": ((str,), "a file name or a list of them", "inputs"),
    "names": ((str,), "a name or a list of names", "split_by_detector bands"),
    "mapping": ((str,), "names with new names, as {F606W: ACS_F606W}", "rename_bands"),
    "number": (
        (int, float, str),
        "a number",
        "wcs_tolerance sip_tolerance err_scale abmag background_offset max_snr",
    ),
    "integer": ((int, str), "an integer", "tile_overlap"),
    "size": ((int,), "an integer or two, as [2048, 2048]", "tile"),
    "switch": ((bool,), "true or false", "pad fluxcal"),
    "bits": ((str, int), "a number, a flag name, or a list of them", "bitmask"),
    "extension": ((str, int), "name or number of an extension", "sci"),
    "image": (
        (str, int),
        "a file name, or name or number of an extension",
        "err wht mask background area",
    ),
}
"""Kinds of values: their types, how messages call them, and the keys whose values are one."""

_KIND_OF = {key: kind for kind, (*_, keys) in _KINDS.items() for key in keys.split()}
_OPTION_KEYS = [key for key in _KIND_OF if key not in ("match", "inputs", "out")]

_FIELD_OF = {"rename_bands": "band_names", "fluxcal": "do_fluxcal"}
_ROLE_OF = {"err": "err", "wht": "wht", "mask": "mask", "background": "bkg", "area": "area"}
_CALIBRATION = {entry.name for entry in fields(CalibrationOptions)}

_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)\}|(\w+))")
_FILE_NAME = re.compile(r"[./{]")
_FILE_FIELD = re.compile(r"\{(\w*)\}")
_LARGEST = 1 << 20


@dataclass(frozen=True)
class _Section:
    """Options of the files that a pattern matches, and where in the file they are."""

    match: str
    options: Mapping[str, Any]
    place: str


@dataclass(frozen=True)
class IngestConfig:
    """What a configuration file says.

    Attributes
    ----------
    path : Path
        The file.
    named : tuple of str
        Files, folders and patterns.
    out : Path or None
        The store folder.
    """

    path: Path
    named: tuple[str, ...] = ()
    out: Path | None = None
    _defaults: _Section = field(default_factory=lambda: _Section("*", {}, ""))
    _sections: tuple[_Section, ...] = ()

    def inputs(self, items: object = (), overrides: Mapping[str, Any] | None = None) -> list[Input]:
        """Find the inputs and give each its options."""
        found = find_inputs(items) or find_inputs(self.named)
        if not found:
            raise ConfigError(f"{self.path}: no inputs; name files here or on the command line")
        used: set[int] = set()
        result = [self._with_options(item, overrides or {}, used) for item in found]
        for number, section in enumerate(self._sections):
            if number not in used:
                raise ConfigError(
                    f"{section.place}: match {section.match!r} matches none of the {len(found)} "
                    "inputs"
                )
        return result

    def _with_options(self, item: Input, overrides: Mapping[str, Any], used: set[int]) -> Input:
        """Apply what holds for an input: the top of the file, its sections, the overrides."""
        layers = [self._defaults]
        for number, section in enumerate(self._sections):
            names = (item.path.name, str(item.path), str(item.path.absolute()))
            if any(fnmatch(name, section.match) for name in names):
                used.add(number)
                layers.append(section)
        layers.append(_Section("", overrides, "command line"))
        for layer in layers:
            item = _apply(item, layer)
        return item


def load_config(path: str | Path) -> IngestConfig:
    """Read a configuration file."""
    path = Path(path)
    root = _parse(path)
    values: dict[str, Any] = {}
    sections: list[_Section] = []
    for key, node, place in _items(path, root, ("inputs", "out", "exposures", *_OPTION_KEYS)):
        if key == "exposures":
            sections = _sections(path, node, place)
        else:
            values[key] = _value(key, node, place)
    named, out = values.pop("inputs", ()), values.pop("out", None)
    config = IngestConfig(
        path,
        named,
        None if out is None else Path(out),
        _Section("*", values, str(path)),
        tuple(sections),
    )
    # Options that make no sense are told now, not for each file.
    for section in (config._defaults, *sections):
        _apply(Input(Path("any.fits")), section)
    return config


def _parse(path: Path) -> yaml.MappingNode:
    """Read the nodes of a YAML file, which know their lines."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ConfigError(f"{path}: is larger than {_LARGEST} bytes; no configuration is")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        yaml.safe_load(text)  # refuses tags that would make objects
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    # Of a value that is not what its tag or its form says, as 2020-13-45, PyYAML raises the others.
    except (yaml.YAMLError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path}: is no plain YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: is nested too deeply") from error
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}: expected keys with values, as 'wcs: auto'")
    return root


def _items(path: Path, node: Any, known: Iterable[str]) -> Iterable[tuple[str, Any, str]]:
    """The keys, values and places of a mapping, each key known and there once."""
    seen: set[str] = set()
    for key_node, value in node.value:
        place = f"{path}, line {key_node.start_mark.line + 1}"
        key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{place}: unknown key {key!r}; {hint}")
        if key in seen:
            raise ConfigError(f"{place}: key {key!r} is there twice")
        seen.add(key)
        yield key, value, place


def _sections(path: Path, node: Any, place: str) -> list[_Section]:
    """Read the sections."""
    if not isinstance(node, yaml.SequenceNode) or not all(
        isinstance(entry, yaml.MappingNode) for entry in node.value
    ):
        raise ConfigError(f"{place}: exposures: expected a list of sections with match and options")
    sections = []
    for entry in node.value:
        own = f"{path}, line {entry.start_mark.line + 1}"
        found = _items(path, entry, ("match", *_OPTION_KEYS))
        options = {key: _value(key, value, where) for key, value, where in found}
        match = options.pop("match", None)
        if match is None:
            raise ConfigError(f"{own}: the section has no match; expected a pattern of file names")
        sections.append(_Section(match, options, own))
    return sections


def _value(key: str, node: Any, place: str) -> Any:
    """Turn a node into a value of the kind that a key has."""
    kind = _KIND_OF[key]
    types, expected, _ = _KINDS[kind]
    is_list = isinstance(node, yaml.SequenceNode) and kind in ("names", "paths", "bits", "size")
    is_map = isinstance(node, yaml.MappingNode) and kind == "mapping"
    nodes = node.value if is_list else [node]
    if is_map:
        nodes = [each for pair in node.value for each in pair]
    values = [_scalar(each, place) for each in nodes]
    is_fit = is_map if kind == "mapping" else bool(values)
    is_fit &= all(type(value) in types for value in values)  # a bool is no integer
    if is_fit and kind in ("number", "integer"):
        # Numbers like 2e-2 are text to YAML 1.1, as are those of environment variables.
        with suppress(ValueError, OverflowError):
            return int(values[0]) if kind == "integer" else float(values[0])
        is_fit = False
    if not is_fit:
        scalar = _scalar(node, place)
        found = "a list or mapping" if scalar is None else repr(scalar)
        raise ConfigError(f"{place}: {key} is {found}; expected {expected}")
    if kind == "mapping":
        return dict(zip(values[::2], values[1::2], strict=True))
    if kind == "size" and not is_list:
        return values[0], values[0]
    return tuple(values) if is_list or kind in ("names", "paths") else values[0]


def _scalar(node: Any, place: str) -> Any:
    """Read a single value, environment variables in it expanded; None for anything else."""
    if not isinstance(node, yaml.ScalarNode):
        return None
    value = yaml.SafeLoader("").construct_object(node)

    def expand(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name is None:
            return "$"
        if name not in os.environ:
            raise ConfigError(f"{place}: the environment variable {name} is not set")
        return os.environ[name]

    return _VARIABLE.sub(expand, value) if isinstance(value, str) else value


def _apply(item: Input, section: _Section) -> Input:
    """Give an input the options of a section."""
    reading: dict[str, Any] = {}
    calibration, companions = dict[str, Any](), dict(item.companions)
    extensions = dict(item.options.extensions)
    for key, value in section.options.items():
        name, role = _FIELD_OF.get(key, key), _ROLE_OF.get(key, key)
        if key in ("sci", *_ROLE_OF):
            # What is said last holds, a file or an extension.
            companions.pop(role, None)
            extensions.pop(role, None)
            if isinstance(value, int) or not _FILE_NAME.search(value):
                extensions[role] = value
            else:
                companions[role] = _companion(value, item.path, section.place, key)
        elif name in _CALIBRATION:
            calibration[name] = value
        else:
            reading[name] = value
    try:
        return replace(
            item,
            companions=companions,
            options=replace(item.options, extensions=extensions, **reading),
            calibration=replace(item.calibration, **calibration),
        )
    except FpgpuError as error:
        raise ConfigError(f"{section.place}: {error}") from error


def _companion(pattern: str, path: Path, place: str, key: str) -> Path:
    """Name the companion of a file."""
    stem = FILE_ENDING.sub("", path.name)
    known = {"stem": stem, "folder": str(path.parent), "name": path.name}

    def fill(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise ConfigError(
                f"{place}: {key} has the field {match[0]}; expected {{stem}}, {{folder}} or "
                "{name} of the science image"
            )
        return known[match[1]]

    return Path(_FILE_FIELD.sub(fill, pattern))
