"""Synthetic inputs too large to make for every run: made once, kept outside the repository.

They lie in ``$FPGPU_BENCHMARK_CACHE``, by default ``~/.cache/fpgpu/benchmarks``, in a folder named
after the digest of their recipe: another recipe, another folder. Delete them whenever you like.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["VARIABLE", "cache_folder", "made_once"]

VARIABLE = "FPGPU_BENCHMARK_CACHE"
_RECIPE = "recipe.json"


def cache_folder() -> Path:
    """Where inputs are kept."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "fpgpu" / "benchmarks"


def made_once(
    root: Path,
    kind: str,
    recipe: Mapping[str, Any],
    n_bytes: int,
    make: Callable[[Path], None],
    say: Callable[[str], None],
) -> Path:
    """Give the folder of inputs made after a recipe, making them when they are not there.

    Another process that makes the same is waited for. What a killed one left is made anew.
    """
    text = json.dumps(recipe, sort_keys=True)
    folder = root / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if _is_complete(folder, text):
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_complete(folder, text):
            return folder
        _require_room(root, kind, n_bytes)
        say(_notice(root, folder, kind, n_bytes))
        partial = root / f"{folder.name}.partial"
        for leftover in (partial, folder):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir()
        make(partial)
        (partial / _RECIPE).write_text(text)
        partial.rename(folder)
    return folder


def _is_complete(folder: Path, recipe: str) -> bool:
    """Whether inputs are there; the recipe is written last."""
    kept = folder / _RECIPE
    return kept.is_file() and kept.read_text() == recipe


def _require_room(root: Path, kind: str, n_bytes: int) -> None:
    free = shutil.disk_usage(root).free
    if free < n_bytes:
        raise OSError(
            f"{root}: the {kind} inputs need {n_bytes / 1e9:.1f} GB and {free / 1e9:.1f} GB are"
            f" free: make room, or set {VARIABLE} to a folder on another disk"
        )


def _notice(root: Path, folder: Path, kind: str, n_bytes: int) -> str:
    text = f"making the {kind} inputs, {n_bytes / 1e9:.2g} GB, kept in {folder} ({VARIABLE})"
    older = sorted(p.name for p in root.glob(f"{kind}-*") if p.is_dir() and p != folder)
    if older:
        text += f"; made after other recipes, delete what you do not need: {', '.join(older)}"
    return text
