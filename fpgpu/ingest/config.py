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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from fnmatch import fnmatch
from functools import reduce
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import yaml

from fpgpu.errors import ConfigError, FpgpuError, MissingFileError, UnusableExposureError
from fpgpu.ingest.find import find_inputs
from fpgpu.ingest.inputs import OPTIONS, ROLES, CalibrationOptions, Input, Kind
from fpgpu.ingest.naming import FILE_ENDING

__all__ = ["IngestConfig", "load_config"]

_FIELD_OF = {"rename_bands": "band_names", "fluxcal": "do_fluxcal"}
_KEY_OF = {name: key for key, name in _FIELD_OF.items()}
_ROLE_OF = {"sci": "sci", **{"background" if role == "bkg" else role: role for role in ROLES}}
_CALIBRATION = {entry.name for entry in fields(CalibrationOptions)}


def _take(*types: type) -> Callable[[Any], Any]:
    """Take values of some types, of which bool is one only where it is named."""

    def take(value: Any) -> Any:
        if type(value) not in types:
            raise TypeError
        return value

    return take


_TEXT = Kind("text", _take(str))
_NAMES = Kind(
    "a file name or a list of them",
    lambda value: tuple(map(_take(str), value if isinstance(value, list) else [value])),
)
_IMAGE = Kind("a file name, or name or number of an extension", _take(str, int))
_KINDS = {
    **{_KEY_OF.get(name, name): kind for name, kind in OPTIONS.items()},
    **dict.fromkeys(_ROLE_OF, _IMAGE),
    "inputs": _NAMES,
    "out": _TEXT,
    "match": _TEXT,
}
"""What the values of keys are."""

# The size of a super-pixel is that of the store, and extensions have keys of their own.
_NO_OPTIONS = ("match", "inputs", "out", "super_pixel_size", "extensions")
_OPTION_KEYS = [key for key in _KINDS if key not in _NO_OPTIONS]

_FILE_NAME = re.compile(r"[./{]")
_LARGEST = 1 << 20


class _Section(NamedTuple):
    """Options of the files that a pattern matches, and where in the file they are."""

    match: str
    options: Mapping[str, Any]
    place: str

    def matches(self, path: Path) -> bool:
        """Whether the pattern is that of a file, by its name or path."""
        return any(fnmatch(str(name), self.match) for name in (path.name, path, path.absolute()))


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
    _sections: tuple[_Section, ...] = ()

    def inputs(self, items: object = (), overrides: Mapping[str, Any] | None = None) -> list[Input]:
        """Find the inputs and give each the options of the sections that match, later ones last."""
        found = find_inputs(items) or find_inputs(self.named)
        if not found:
            raise ConfigError(f"{self.path}: no inputs; name files here or on the command line")
        for section in self._sections:
            if not any(section.matches(item.path) for item in found):
                raise ConfigError(
                    f"{section.place}: match {section.match!r} matches none of the {len(found)} "
                    "inputs"
                )
        sections = (*self._sections, _Section("*", overrides or {}, "command line"))
        return [reduce(_apply, (s for s in sections if s.matches(i.path)), i) for i in found]


def load_config(path: str | Path) -> IngestConfig:
    """Read a configuration file."""
    path = Path(path)
    keys = ("inputs", "out", "exposures", *_OPTION_KEYS)
    values = _values(path, _parse(path), keys)
    further = values.pop("exposures", ())
    named, out = values.pop("inputs", ()), values.pop("out", None)
    sections = (_Section("*", values, str(path)), *further)
    # Options that make no sense are told now, not for each file.
    for section in sections:
        _apply(Input(Path("any.fits")), section)
    return IngestConfig(path, named, None if out is None else Path(out), sections)


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


def _values(path: Path, node: Any, known: Iterable[str]) -> dict[str, Any]:
    """Read a mapping, each key known and there once, and each value of its kind."""
    values: dict[str, Any] = {}
    for key_node, value in node.value:
        place = f"{path}, line {key_node.start_mark.line + 1}"
        key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{place}: unknown key {key!r}; {hint}")
        if key in values:
            raise ConfigError(f"{place}: key {key!r} is there twice")
        try:
            values[key] = (
                _sections(path, value)
                if key == "exposures"
                else _KINDS[key].checked(key, _plain(value))
            )
        except ConfigError:
            raise
        except FpgpuError as error:
            raise ConfigError(f"{place}: {error}") from error
    return values


def _sections(path: Path, node: Any) -> list[_Section]:
    """Read the sections."""
    if not isinstance(node, yaml.SequenceNode) or not all(
        isinstance(entry, yaml.MappingNode) for entry in node.value
    ):
        raise UnusableExposureError("exposures: expected a list of sections with match and options")
    sections = []
    for entry in node.value:
        own = f"{path}, line {entry.start_mark.line + 1}"
        options = _values(path, entry, ("match", *_OPTION_KEYS))
        match = options.pop("match", None)
        if match is None:
            raise ConfigError(f"{own}: the section has no match; expected a pattern of file names")
        sections.append(_Section(match, options, own))
    return sections


def _plain(node: Any) -> Any:
    """Read a value, or a list or mapping of single ones; what is nested deeper becomes None."""
    if isinstance(node, yaml.SequenceNode):
        return [_scalar(each) for each in node.value]
    if isinstance(node, yaml.MappingNode):
        return {_scalar(name): _scalar(each) for name, each in node.value}
    return _scalar(node)


def _scalar(node: Any) -> Any:
    """Read a single value, environment variables in it expanded; None for anything else."""
    if not isinstance(node, yaml.ScalarNode):
        return None
    value = yaml.SafeLoader("").construct_object(node)
    if not isinstance(value, str):
        return value
    try:
        return Template(value).substitute(os.environ)
    except KeyError as error:
        raise UnusableExposureError(
            f"the environment variable {error.args[0]} is not set"
        ) from error
    except ValueError as error:
        raise UnusableExposureError(
            f"{value!r} has a $ that begins no name; $$ is a dollar sign"
        ) from error


def _apply(item: Input, section: _Section) -> Input:
    """Give an input the options of a section."""
    options = {_FIELD_OF.get(key, key): value for key, value in section.options.items()}
    companions, extensions = dict(item.companions), dict(item.options.extensions)
    try:
        for key in _ROLE_OF.keys() & options.keys():
            role, value = _ROLE_OF[key], options.pop(key)
            # What is said last holds, a file or an extension.
            companions.pop(role, None)
            extensions.pop(role, None)
            if key == "sci" or isinstance(value, int) or not _FILE_NAME.search(value):
                extensions[role] = value
            else:
                companions[role] = _companion(value, item.path, key)
        calibration = {name: options.pop(name) for name in _CALIBRATION & options.keys()}
        return replace(
            item,
            companions=companions,
            options=replace(item.options, extensions=extensions, **options),
            calibration=replace(item.calibration, **calibration),
        )
    except FpgpuError as error:
        raise ConfigError(f"{section.place}: {error}") from error


def _companion(pattern: str, path: Path, key: str) -> Path:
    """Name the companion of a file."""
    stem = FILE_ENDING.sub("", path.name)
    try:
        return Path(pattern.format(stem=stem, folder=path.parent, name=path.name))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise UnusableExposureError(
            f"{key} is {pattern!r}; expected no fields but {{stem}}, {{folder}} or {{name}} of the "
            "science image"
        ) from error
