"""``fpgpu verify``, ``consolidate``, ``remove`` and ``merge``, as a user types them."""

import json
import shutil

import h5py
import pytest

from fpgpu import PixelStore


@pytest.fixture
def folder(tiny_stores, tmp_path):
    return shutil.copytree(tiny_stores, tmp_path / "stores")


def test_there_and_back(folder, fpgpu_command):
    done = fpgpu_command("consolidate", folder, "--json", "-q")
    assert done.code == 0
    assert json.loads(done.out)["n_exposures"] == 6
    assert done.err == ""
    assert fpgpu_command("verify", folder, "-q").code == 0
    done = fpgpu_command("consolidate", folder, "--shard")
    assert "6 exposures in a file per exposure, 6 of them copied" in done.out
    done = fpgpu_command("consolidate", folder)
    assert "6 exposures in one file" in done.out
    assert "stays for a week" in done.out
    assert "copy 6/6" in done.err


def test_a_sound_store_verifies(folder, fpgpu_command):
    done = fpgpu_command("verify", folder, "-q")
    assert done.code == 0
    assert done.out.strip().endswith("6 exposures, 6 match their checksum; no problems")
    verdict = json.loads(fpgpu_command("verify", folder, "--json", "--quick", "-q").out)
    assert verdict["ok"]
    assert verdict["n_verified"] == 0


def test_problems_are_listed_and_what_can_be_mended_is(folder, fpgpu_command):
    fpgpu_command("consolidate", folder, "--shard", "-q")
    (folder / "meta.json").unlink()
    (folder / "pixels.shards" / ".x.h5.part").write_bytes(b"half")
    done = fpgpu_command("verify", folder, "-q")
    assert done.code == 1
    assert "meta.json" in done.out
    assert "belongs to a writer that was killed" in done.out
    done = fpgpu_command("verify", folder, "--repair", "-q")
    assert done.code == 0, done.out
    assert "written again, with meta.asdf" in done.out
    assert done.out.strip().endswith("no problems")
    assert fpgpu_command("info", folder).code == 0
    done = fpgpu_command("verify", folder, "--repair", "-q", "--json")
    assert json.loads(done.out)["repair"] == []


def test_damage_is_a_problem_that_repair_leaves(folder, fpgpu_command):
    name = "/".join(next(iter(PixelStore(folder / "pixels.h5", mode="r"))))
    with h5py.File(folder / "pixels.h5") as h5:
        file = h5[name].file.filename
    with h5py.File(file, "r+") as h5:
        h5[name]["data"][0, 0, 0] += 1
    for arguments in ([], ["--repair"]):
        done = fpgpu_command("verify", folder, "-q", *arguments)
        assert done.code == 1
        assert f"damaged  {name}" in done.out
    found = json.loads(fpgpu_command("verify", folder, "-q", "--json").out)
    assert found["counts"] == {"damaged": 1}


def test_options_of_repair_need_it(folder, fpgpu_command):
    done = fpgpu_command("verify", folder, "--delete-orphans")
    assert (done.code, "need --repair" in done.err) == (2, True)


def test_remove_tells_what_goes(folder, fpgpu_command):
    done = fpgpu_command("remove", folder, "F200W/*", "--dry-run")
    names = done.out.splitlines()[:-1]
    assert len(names) == 2
    assert done.out.endswith("would be removed: 2 exposures\n")
    assert json.loads(fpgpu_command("remove", folder, *names, "--json").out)["removed"] == names
    done = fpgpu_command("remove", folder, "F200W/*")
    assert done.code == 2
    assert "no exposure matches 'F200W/*'" in done.err
    assert fpgpu_command("info", folder).out.count("F200W") == 0


def test_merge_puts_two_folders_into_one(folder, fpgpu_command, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    fpgpu_command("remove", folder, "F200W/*", "-q")
    done = fpgpu_command("merge", folder, other, "--out", tmp_path / "all", "-q")
    assert done.out.endswith("6 exposures added, 0 replaced\n")
    assert fpgpu_command("verify", tmp_path / "all", "-q").code == 0
    done = fpgpu_command("merge", other, "--out", tmp_path / "all", "--json", "-q")
    assert json.loads(done.out)["added"] == []


@pytest.mark.parametrize("command", [["verify"], ["consolidate"], ["remove", "*"], ["merge"]])
def test_folders_without_stores_are_refused(command, tmp_path, fpgpu_command):
    name, *rest = command
    out = ["--out", tmp_path / "out"] if name == "merge" else []
    done = fpgpu_command(name, tmp_path / "nowhere", *rest, *out)
    assert done.code == 2
    assert "is not a folder; a store folder is made by" in done.err
    assert list(tmp_path.iterdir()) == []
