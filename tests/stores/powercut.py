"""Power failures: what a disk may hold after one, at every instant of a change.

Of a file that is what was synced of it, and perhaps what was written since, whole or in part; of a
folder the names that were synced in it. Each name that came, went or changed since is as it was or
as it is, whatever became of the others.
"""

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

CALLS = ("fsync", "rename", "replace", "link", "unlink", "mkdir", "rmdir")

Tree = dict[str, bytes | None]
"""What a folder holds: the content of files, and None for folders, by their paths."""


class Instant(NamedTuple):
    """A folder between two system calls: as programs see it, and what of it is synced.

    Attributes
    ----------
    root : int
        Inode of the folder.
    names, synced_names : dict
        The inode of every name, by the inode of its folder.
    contents, synced_contents : dict
        Of the files, by inode.
    """

    root: int
    names: dict[int, dict[str, int]]
    contents: dict[int, bytes]
    synced_names: dict[int, dict[str, int]]
    synced_contents: dict[int, bytes]

    def seen(self) -> Tree:
        """Return what programs see."""
        whole = self._replace(synced_names=self.names)
        return dict(whole._below(self.root, "", frozenset(), 1.0))

    def disks(self) -> Iterator[Tree]:
        """Yield what the disk may hold when the power fails now, the barest first."""
        everything = frozenset(
            (folder, name)
            for folder, names in self.names.items()
            for name in names.keys() | self.synced_names[folder]
            if names.get(name) != self.synced_names[folder].get(name)
        )
        alone = [frozenset([one]) for one in sorted(everything)]
        for kept in dict.fromkeys(
            [frozenset(), everything, *alone, *(everything - one for one in alone)]
        ):
            for share in (0.0, 0.5, 1.0):
                yield dict(self._below(self.root, "", kept, share))

    def _below(
        self, folder: int, path: str, kept: frozenset[tuple[int, str]], share: float
    ) -> Iterator[tuple[str, bytes | None]]:
        """Yield what a folder holds when these names are as they are, the others as synced."""
        old, new = self.synced_names[folder], self.names[folder]
        for name in sorted(old.keys() | new):
            inode = (new if (folder, name) in kept else old).get(name)
            if inode in self.names:
                yield path + name, None
                yield from self._below(inode, f"{path}{name}/", kept, share)
            elif inode is not None:
                content = self.contents[inode]
                if content != self.synced_contents.get(inode):
                    content = content[: int(share * len(content))]
                yield path + name, content


class Recorder:
    """Looks at a folder before every system call that changes names in it, or syncs."""

    def __init__(self, folder: Path) -> None:
        self.instants: list[Instant] = []
        self._folder = folder
        self._pins: dict[int, int] = {}  # open files: the number of none is used again
        self._contents: dict[int, bytes] = {}
        self._synced_names = self._look()
        self._synced_contents = dict(self._contents)

    def _look(self) -> dict[int, dict[str, int]]:
        """Return the names in all folders, and read all files."""
        found = {}
        for parent, folders, files in os.walk(self._folder):
            inodes = {}
            for name in (*folders, *files):
                path = Path(parent) / name
                inode = inodes[name] = path.stat().st_ino
                if inode not in self._pins:
                    self._pins[inode] = os.open(path, os.O_RDONLY)
                if name in files:
                    self._contents[inode] = path.read_bytes()
            found[Path(parent).stat().st_ino] = inodes
        return found

    def note(self) -> None:
        """Keep what there is now."""
        names = self._look()
        synced = {inode: dict(self._synced_names.get(inode, {})) for inode in names}
        root = self._folder.stat().st_ino
        # Folders that were removed may come back.
        gone = {inode: found for inode, found in self._synced_names.items() if inode not in names}
        self.instants.append(
            Instant(
                root,
                names | {inode: {} for inode in gone},
                dict(self._contents),
                synced | gone,
                dict(self._synced_contents),
            )
        )

    def wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return a system call that is noted before it is made."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.note()
            result = real(*args, **kwargs)
            if name == "fsync":
                self._synced(args[0])
            return result

        return call

    def _synced(self, descriptor: int) -> None:
        """What this file or folder holds is on the disk from now on."""
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self._synced_names[status.st_ino] = self._look().get(status.st_ino, {})
        else:
            content = os.pread(descriptor, status.st_size, 0)
            self._synced_contents[status.st_ino] = content

    def close(self) -> None:
        """Let go of the files."""
        for descriptor in self._pins.values():
            os.close(descriptor)


def recorded(folder: Path, change: Callable[[Path], Any]) -> list[Instant]:
    """Make a change of a folder that is synced as a whole; return its instants, the last after it.

    Parameters
    ----------
    folder : pathlib.Path
        What is changed.
    change : callable
        Gets the folder.
    """
    recorder = Recorder(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, recorder.wrapped(name, getattr(os, name)))
            change(folder)
        recorder.note()
    finally:
        recorder.close()
    return recorder.instants


def cuts(instants: list[Instant]) -> Iterator[tuple[int, Tree]]:
    """Yield every disk that a power failure may leave once, and at which instant it is the last.

    Parameters
    ----------
    instants : list of Instant
        From `recorded`.
    """
    disks = {}
    for number, instant in enumerate(instants):
        for tree in instant.disks():
            disks[frozenset(tree.items())] = number, tree
    yield from disks.values()


def lay_out(tree: Tree, folder: Path) -> None:
    """Make a folder hold what a disk holds, its processes being dead.

    Parameters
    ----------
    tree : dict
        From `cuts`.
    folder : pathlib.Path
        Replaced.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in tree.items():
        path = folder / name
        if content is None:
            path.mkdir()
        elif path.name.endswith("lease"):  # this process lives on
            path.write_bytes(re.sub(rb"\npid=\d+\n", b"\npid=4194305\n", content))
        else:
            path.write_bytes(content)
