"""Files change all at once or not at all: without faults, with errors, and with full disks."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fpgpu.errors import (
    IntegrityError,
    LayoutError,
    MissingStoreError,
    StoreBusyError,
    StoreConflictError,
    StoreWriteError,
)
from fpgpu.stores.files import sync
from fpgpu.stores.files.publish import publish, recover, scratch_folder, signature, write_beside


def put(target: Path, text: str) -> None:
    with write_beside(target) as temporary:
        temporary.write_text(text)


def put_all(texts: dict[Path, str | None]) -> None:
    folder = next(iter(texts)).parent
    with scratch_folder(folder) as scratch:
        files = {}
        for target, text in texts.items():
            files[target] = None if text is None else scratch / target.name
            if text is not None:
                (scratch / target.name).write_text(text)
        publish(files)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- one file --------------------------------------------------------------------------------


def test_a_new_file_appears_alone(tmp_path):
    put(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    assert names(tmp_path) == {"a"}


def test_readers_see_the_old_file_until_the_block_ends(tmp_path):
    target = tmp_path / "a"
    target.write_text("old")
    with write_beside(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_the_temporary_keeps_the_targets_name(tmp_path):
    """Writers that choose a format by extension, or append one, do the right thing."""
    with write_beside(tmp_path / "meta.asdf") as temporary:
        assert temporary.name == "meta.asdf"
        temporary.touch()


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a"
    target.write_text("old")

    def stop_half_way():
        with write_beside(target) as temporary:
            temporary.write_text("half")
            raise LayoutError("no")

    with pytest.raises(LayoutError):
        stop_half_way()
    assert target.read_text() == "old"
    assert names(tmp_path) == {"a"}


def test_a_block_that_wrote_nothing_is_an_error(tmp_path):
    with pytest.raises(StoreWriteError, match="as it was before"), write_beside(tmp_path / "a"):
        pass
    assert names(tmp_path) == set()


def test_content_that_is_out_of_date_is_given_up(tmp_path):
    target = tmp_path / "a"
    put(target, "old")
    seen = signature(target)

    def write_from_what_was_seen():
        with write_beside(target, lambda: signature(target) == seen) as temporary:
            temporary.write_text("from old")
            put(target, "somebody else's")

    with pytest.raises(StoreConflictError, match="try again"):
        write_from_what_was_seen()
    assert target.read_text() == "somebody else's"
    assert names(tmp_path) == {"a"}


def test_permissions_are_those_of_a_normal_new_file(tmp_path):
    (tmp_path / "plain").touch()
    put(tmp_path / "a", "new")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_permissions_of_a_replaced_file_are_kept(tmp_path):
    target = tmp_path / "a"
    target.touch()
    target.chmod(0o640)
    put(target, "new")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_write_protected_file_is_not_replaced(tmp_path, monkeypatch):
    target = tmp_path / "a"
    target.write_text("old")
    # The superuser may write everything, so the answer of the system is given here.
    monkeypatch.setattr(sync.os, "access", lambda path, mode: Path(path) != target)
    with pytest.raises(StoreWriteError, match="write-protected"):
        put(target, "new")
    assert target.read_text() == "old"


def test_a_symbolic_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    link = tmp_path / "link"
    link.symlink_to("far/real")
    put(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "far" / "real").read_text() == "new"
    assert names(tmp_path) == {"far", "link"}


def test_a_folder_in_the_targets_place_is_an_error(tmp_path):
    with pytest.raises(StoreWriteError, match="is a folder"), write_beside(tmp_path):
        pass


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(StoreWriteError, match=r"cannot be written.*nowhere"):
        put(tmp_path / "nowhere" / "a", "new")


def test_signature_changes_with_the_file_and_names_a_missing_one(tmp_path):
    target = tmp_path / "a"
    put(target, "old")
    before = signature(target)
    assert signature(target) == before
    put(target, "new")
    assert signature(target) != before
    assert signature(target).content == (3, target.stat().st_mtime_ns)
    with pytest.raises(MissingStoreError, match="gone"):
        signature(tmp_path / "gone")


# --- several files ---------------------------------------------------------------------------


def test_several_files_are_created_replaced_and_removed_together(tmp_path):
    put(tmp_path / "b", "old")
    put(tmp_path / "c", "old")
    put_all({tmp_path / "a": "1", tmp_path / "b": "2", tmp_path / "c": None})
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "1", "b": "2"}


def test_targets_must_share_a_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    with scratch_folder(tmp_path) as scratch:
        (scratch / "a").touch()
        with pytest.raises(StoreWriteError, match="one folder"):
            publish({tmp_path / "a": scratch / "a", tmp_path / "sub" / "b": None})


def test_temporaries_must_come_from_the_folders_scratch(tmp_path):
    (tmp_path / "elsewhere").touch()
    with pytest.raises(StoreWriteError, match="scratch folder"):
        publish({tmp_path / "a": tmp_path / "elsewhere"})


def test_a_missing_temporary_changes_nothing(tmp_path):
    put(tmp_path / "a", "old")
    with scratch_folder(tmp_path) as scratch:
        (scratch / "a").write_text("new")
        with pytest.raises(StoreWriteError):
            publish({tmp_path / "a": scratch / "a", tmp_path / "b": scratch / "b"})
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == {"a"}


def test_nothing_pending_is_nothing_to_recover(tmp_path):
    put(tmp_path / "a", "new")
    assert not recover(tmp_path)
    assert not recover(tmp_path / "a")


def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a change of a and b after the first of its two renames."""
    real = os.replace

    def fail_at_b(source, target):
        if Path(target).name == "b":
            raise OSError("disk gone")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail_at_b)
        with pytest.raises(StoreWriteError, match=r"half-way.*completed when"):
            put_all({folder / "a": "new", folder / "b": "new"})


def test_a_change_that_failed_half_way_is_completed_by_the_next_opening(tmp_path, monkeypatch):
    put_all({tmp_path / "a": "old", tmp_path / "b": "old"})
    interrupted(tmp_path, monkeypatch)
    assert (tmp_path / "a").read_text() != (tmp_path / "b").read_text()
    assert recover(tmp_path / "a")
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "new"
    assert names(tmp_path) == {"a", "b"}


def test_a_pending_change_in_a_folder_that_cannot_be_written_is_a_clear_error(
    tmp_path, monkeypatch
):
    put_all({tmp_path / "a": "old", tmp_path / "b": "old"})
    interrupted(tmp_path, monkeypatch)

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StoreWriteError, match="interrupted change is pending"):
        recover(tmp_path)


def test_lost_temporaries_after_the_first_rename_are_reported(tmp_path, monkeypatch):
    put_all({tmp_path / "a": "old", tmp_path / "b": "old"})
    interrupted(tmp_path, monkeypatch)
    next(tmp_path.glob(".fpgpu-scratch-*/b")).unlink()
    with pytest.raises(IntegrityError, match="new content of b is gone"):
        recover(tmp_path)


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"entries": [], "sha256": "0"}', b"\xff"])
def test_a_damaged_record_is_removed(tmp_path, record):
    put(tmp_path / "a", "old")
    (tmp_path / ".fpgpu-publish.json").write_bytes(record)
    assert recover(tmp_path)
    assert names(tmp_path) == {"a"}


# --- other writers ---------------------------------------------------------------------------


def test_writers_in_threads_do_not_mix(tmp_path):
    pair = [tmp_path / "a", tmp_path / "b"]

    def rewrite(tag):
        for i in range(5):
            put_all(dict.fromkeys(pair, f"{tag}{i}"))

    threads = [threading.Thread(target=rewrite, args=(tag,)) for tag in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pair[0].read_text() == pair[1].read_text()
    assert names(tmp_path) == {"a", "b"}


def test_a_living_writers_temporaries_are_left_alone(tmp_path):
    with write_beside(tmp_path / "a") as temporary:
        temporary.write_text("slow")
        put(tmp_path / "b", "quick")
    assert (tmp_path / "a").read_text() == "slow"


def test_a_dead_writers_temporaries_are_removed_by_the_next_writer(tmp_path):
    abandoned = tmp_path / ".fpgpu-scratch-0123456789abcdef"
    abandoned.mkdir()
    (abandoned / "a").write_text("half")
    put(tmp_path / "b", "new")
    assert names(tmp_path) == {"b"}


def test_a_folder_held_by_another_writer_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(sync, "LOCK_TIMEOUT", 0.02)
    with sync.locked(tmp_path), pytest.raises(StoreBusyError, match="another process"):
        put(tmp_path / "a", "new")


FULL_DISK = """
import resource, sys
from pathlib import Path
from fpgpu.errors import StoreWriteError
from fpgpu.stores.files.publish import write_beside
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with write_beside(sys.argv[1]) as temporary:
        temporary.write_bytes(bytes(8192))
except StoreWriteError as exc:
    print(exc)
"""


def test_a_full_disk_leaves_the_old_file(tmp_path):
    target = tmp_path / "a"
    target.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(target)], capture_output=True, text=True, check=True
    )
    assert "File too large" in done.stdout
    assert "as it was before" in done.stdout
    assert target.read_text() == "old"
    assert names(tmp_path) == {"a"}
