"""Large inputs: made once for a recipe, and again for another."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.inputs.cache import VARIABLE, cache_folder, made_once

RECIPE = {"side": 2048, "exposures": 72}


def made(root: Path, recipe: object = RECIPE, n_bytes: int = 10) -> tuple[Path, list[str]]:
    """Make inputs that say how often they were made."""
    said: list[str] = []

    def make(folder: Path) -> None:
        (folder / "values").write_text(str(recipe))

    return made_once(root, "field", recipe, n_bytes, make, said.append), said  # type: ignore[arg-type]


def test_the_same_recipe_is_made_once(tmp_path: Path) -> None:
    first, said = made(tmp_path, n_bytes=2_400)
    assert said[0].startswith(f"making the field inputs, 2.4e-06 GB, kept in {first} ({VARIABLE})")
    assert made(tmp_path) == (first, [])


def test_another_recipe_goes_to_another_folder_and_the_old_one_is_named(tmp_path: Path) -> None:
    first, _ = made(tmp_path)
    second, said = made(tmp_path, RECIPE | {"side": 1024})
    assert second != first
    assert said[0].endswith(f"delete what you do not need: {first.name}")


def test_what_a_killed_run_left_is_made_anew(tmp_path: Path) -> None:
    folder, _ = made(tmp_path)
    (folder / "recipe.json").unlink()
    (folder / "values").write_text("half")
    (tmp_path / f"{folder.name}.partial").mkdir()
    again, said = made(tmp_path)
    assert again == folder
    assert len(said) == 1
    assert (folder / "values").read_text() == str(RECIPE)
    assert not list(tmp_path.glob("*.partial"))


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=rf"need 1000000\.0 GB and .* set {VARIABLE}"):
        made(tmp_path, n_bytes=10**15)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_the_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache_folder() == tmp_path / "caches" / "fpgpu" / "benchmarks"


def test_those_that_need_the_same_at_once_make_it_once(tmp_path: Path) -> None:
    # A lock of flock belongs to the open file, so threads are kept apart as processes are.
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: made(tmp_path), range(4)))
    assert len({folder for folder, _ in results}) == 1
    assert sum(len(said) for _, said in results) == 1
