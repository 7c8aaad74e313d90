"""Mending what can be mended in a store folder without guessing."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fpgpu.errors import FpgpuError, StoreBusyError, StoreWriteError
from fpgpu.stores.commit import commit_shards, holding
from fpgpu.stores.disk import write_errors
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.metadata.skyrecords import Key
from fpgpu.stores.metadata.source import MetaPaths
from fpgpu.stores.metafiles import are_known
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.shard import PIXELS_ENDING, Shard, find_orphans, find_parts, read_shard
from fpgpu.stores.state import open_state
from fpgpu.stores.upkeep.copying import same_exposure
from fpgpu.stores.upkeep.verify import stale_views, verify
from fpgpu.stores.views import write_views

__all__ = ["Repair", "Repaired", "repair"]

_BY_HAND = {"unreadable", "missing shard", "refused link", "only in pixels", "only in meta"}
"""Problems that only a person can settle, and that nothing else was said of."""


@dataclass(frozen=True)
class Repair:
    """One thing that was mended, or left alone for a reason.

    Attributes
    ----------
    where : str
        The exposure or the file.
    what : str
        What was done, or why nothing was.
    done : bool
        Whether something was done.
    """

    where: str
    what: str
    done: bool


@dataclass
class Repaired:
    """What a repair did and what it would not do.

    Attributes
    ----------
    folder : str
        The store folder.
    steps : list of Repair
        In order.
    """

    folder: str
    steps: list[Repair] = field(default_factory=list)

    def did(self, where: object, what: str) -> None:
        """Note something that was done.

        Parameters
        ----------
        where : object
            Its text names the exposure or the file.
        what : str
            What was done.
        """
        self.steps.append(Repair(str(where), what, done=True))

    def left(self, where: object, why: str) -> None:
        """Note something that was left alone.

        Parameters
        ----------
        where : object
            Its text names the exposure or the file.
        why : str
            The reason.
        """
        self.steps.append(Repair(str(where), why, done=False))

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain types.

        Returns
        -------
        dict
            Ready for JSON.
        """
        return asdict(self)


def repair(
    folder: str | Path, *, delete_orphans: bool = False, break_lock: bool = False
) -> Repaired:
    """Mend a store folder, as far as that needs no guess.

    Removes what killed writers left unfinished. A shard that no commit names is committed when its
    exposure is in the store in no other form; it is deleted when the store holds the same bits;
    otherwise it is kept. forcepho's views are written again, unless somebody has changed them.
    Exposures are never removed and never replaced.

    Parameters
    ----------
    folder : path
        The store folder.
    delete_orphans : bool, optional
        Delete also those shards that would be kept.
    break_lock : bool, optional
        Go on although another process seems to be changing the stores.

    Returns
    -------
    Repaired
        What was done, and what was left and why.

    Raises
    ------
    MissingStoreError
        If there is no such folder, or it holds nothing of a store.
    StoreBusyError
        If another process is changing the stores.
    StoreFormatError, StoreWriteError
        If a main file of the store cannot be read or written.
    """
    place = StoreFolder(Path(folder).resolve())
    if not place.holds_anything():
        place.require()
    done = Repaired(str(folder))
    with (
        holding(place.pixels, timeout=1.0, break_lease=break_lock),
        write_errors(place.path, "what was mended before that stays; try again"),
    ):
        for part in find_parts(place.path):
            part.unlink(missing_ok=True)
            done.did(part.relative_to(place.path), "deleted: its writer was killed")
        _settle_orphans(place, done, delete_orphans)
        _write_views(place, done)
        for problem in verify(folder, pixels=False, wcs=False).problems:
            if problem.kind in _BY_HAND and not problem.repairable:
                done.left(problem.where, f"{problem.what}; {problem.remedy}")
    return done


def _settle_orphans(place: StoreFolder, done: Repaired, delete: bool) -> None:
    """Commit, delete or keep the shards that no commit names."""
    state = open_state(place.pixels, missing_ok=True)
    known = state.index.rows if state.exists else {}
    by_key: dict[Key, list[Shard]] = {}
    for path in find_orphans(place.path):
        file = path.relative_to(place.path)
        if path.suffix != PIXELS_ENDING:
            _keep(path, file, "holds metadata that no commit names", done, delete)
            continue
        try:
            shard = read_shard(path)
            shard.verify()
        except FpgpuError as exc:
            if not _all_held(place, path):
                _keep(path, file, f"cannot be used: {exc}", done, delete)
            else:
                path.unlink()
                done.did(file, "deleted: the store holds the same bits of all that is in it")
        else:
            by_key.setdefault(shard.key, []).append(shard)
    for key, shards in by_key.items():
        name = "/".join(key)
        if key in known and known[key].file:
            for shard in shards:
                if _all_held(place, shard.file):
                    shard.file.unlink()
                    done.did(shard.path, f"deleted: the store holds the same bits as {name}")
                else:
                    why = (
                        f"the store holds another version of {name}, and nothing tells which one "
                        "is wanted; ingest the exposure again, or use --delete-orphans"
                    )
                    _keep(shard.file, Path(shard.path), why, done, delete)
        elif len({shard.record.checksum for shard in shards}) == 1:
            for shard in shards[1:]:
                shard.file.unlink()
                done.did(shard.path, f"deleted: holds the same bits as {shards[0].path}")
            # One by one, so that a name that collides with another does not keep the others out.
            try:
                commit_shards(place.pixels, shards[:1])
            except (StoreBusyError, StoreWriteError):
                raise
            except FpgpuError as exc:
                done.left(shards[0].path, f"cannot be committed: {exc}")
            else:
                done.did(shards[0].path, f"committed as {name}, which the store lacked")
        else:
            for shard in shards:
                why = f"{len(shards)} shards of {name} differ, and none is in the store"
                _keep(shard.file, Path(shard.path), why, done, delete)


def _keep(path: Path, name: Path, why: str, done: Repaired, delete: bool) -> None:
    """Keep a shard, unless it was asked for that such are deleted."""
    if delete:
        path.unlink()
        done.did(name, f"deleted, as asked for; {why}")
    else:
        done.left(name, why)


def _all_held(place: StoreFolder, path: Path) -> bool:
    """Whether the store holds the same bits and record of every exposure in a file."""
    try:
        store, other = PixelStore(place.pixels, mode="r"), PixelStore(path, mode="r")
        return bool(len(other)) and all(same_exposure(store, other, key) for key in other)
    except FpgpuError:
        return False


def _write_views(place: StoreFolder, done: Repaired) -> None:
    """Write forcepho's files again where they are not as the store is, and nobody's own."""
    state = open_state(place.pixels, missing_ok=True)
    paths = MetaPaths.of(place.meta)
    if state.stored is None:
        return
    if not are_known(state, paths):
        done.left(
            paths.json.name,
            "was changed by somebody; 'fpgpu views' takes that over, or remove meta.json and "
            "meta.asdf and run it",
        )
    elif stale_views(state, paths):
        write_views(place.pixels)
        done.did(paths.json.name, "written again, with meta.asdf")
