"""A bundle as one file: the same bytes, whatever command takes it, and what is refused."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import zipfile

import artifacts
import numpy as np
import pytest

import edgeattn
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.bundle.pack import pack
from edgeattn.errors import BundleError, OutputError, UnsafeModelError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "edgeattn/unpacked"


@pytest.fixture
def packed(dense_bundle, tmp_path):
    target = tmp_path / "dense.edge.zip"
    pack(dense_bundle, target)
    return target


def test_it_holds_what_the_bundle_holds(packed, dense_bundle, cache):
    opened = Bundle.open(packed)
    opened.verify()
    assert opened.manifest == dense_bundle.manifest
    assert opened.path.name == "dense.edge"
    assert {p.name: p.read_bytes() for p in opened.path.iterdir()} == {
        p.name: p.read_bytes() for p in dense_bundle.path.iterdir()
    }
    assert cache in opened.path.parents
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_the_same_bytes_every_time(packed, dense_bundle, tmp_path):
    for file in dense_bundle.path.iterdir():
        os.utime(file, (0, 0))
        file.chmod(0o600)
    again = tmp_path / "again.zip"
    pack(Bundle.open(dense_bundle.path), again)
    assert again.read_bytes() == packed.read_bytes()


def test_any_unzip_reads_it(packed, dense_bundle):
    with zipfile.ZipFile(packed) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == MANIFEST
        assert {e.compress_type for e in archive.infolist()} == {zipfile.ZIP_STORED}


def test_what_is_no_part_of_it_is_not_packed(dense_bundle, tmp_path):
    (dense_bundle.path / "notes.txt").write_text("private")
    target = tmp_path / "dense.zip"
    pack(dense_bundle, target)
    with zipfile.ZipFile(target) as archive:
        assert "notes.txt" not in archive.namelist()


def test_a_changed_bundle_is_not_packed(dense_bundle, tmp_path):
    (dense_bundle.path / "reference.npz").write_bytes(b"x")
    with pytest.raises(BundleError, match="is not the file"):
        pack(dense_bundle, tmp_path / "dense.zip")
    assert not list(tmp_path.glob("*.zip"))


def test_what_is_there_stays(packed, dense_bundle, tmp_path):
    with pytest.raises(OutputError, match="exists"):
        pack(dense_bundle, packed)
    pack(dense_bundle, packed, force=True)
    with pytest.raises(OutputError, match=r"a \.zip file"):
        pack(dense_bundle, tmp_path / "model.tflite")
    with pytest.raises(OutputError, match="Cannot write"):
        pack(dense_bundle, tmp_path / "none" / "dense.zip")


def test_unpacked_once(packed):
    first = Bundle.open(packed).path
    inode = (first / MANIFEST).stat().st_ino
    assert (Bundle.open(packed).path / MANIFEST).stat().st_ino == inode


def test_a_damaged_cache_is_noticed(packed):
    file = Bundle.open(packed).path / "reference.npz"
    size = file.stat().st_size
    file.write_bytes(b"x" * size)
    with pytest.raises(BundleError, match="is not the file"):
        Bundle.open(packed).verify()
    file.unlink()
    Bundle.open(packed).verify()  # what is missing is unpacked anew


def test_no_cache_can_be_written(packed, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    opened = Bundle.open(packed)
    opened.verify()


# Every command that takes a bundle


def test_load(packed):
    model = edgeattn.load(packed)
    want = artifacts.dense(np.float32([[1, 2, 3]]))
    assert model([1, 2, 3])["score"].tolist() == want.tolist()


def test_commands(edgeattn, packed, tmp_path):
    told = edgeattn("validate", packed, "--json")
    assert (told.code, told.document["verdict"]) == (0, "pass")
    assert edgeattn("inspect", packed, "--json").document["kind"] == "bundle"
    np.save(tmp_path / "x.npy", artifacts.samples())
    told = edgeattn("run", packed, "--input", "x.npy", "-o", "y.npz")
    assert told.code == 0
    want = artifacts.dense(artifacts.samples())
    assert np.array_equal(np.load(tmp_path / "y.npz")["score"], want)
    told = edgeattn("bench", packed, "--runs", "1", "--threads", "1", "--json")
    assert told.code == 0


def test_selftest(packed):
    command = [sys.executable, "-P", "-m", "edgeattn.selftest", str(packed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("verdict: pass\n")


def test_pack(edgeattn, dense_bundle, tmp_path):
    told = edgeattn("pack", "dense.edge", "--json")
    assert (told.code, told.err) == (0, "")
    target = tmp_path / "dense.edge.zip"
    assert told.document == {
        "path": str(target),
        "bytes": target.stat().st_size,
        "sha256": artifacts.sha256(target),
    }
    assert edgeattn("pack", "dense.edge").code == 2
    assert edgeattn("pack", "dense.edge", "--force", "--quiet").out == f"{target}\n"
    assert edgeattn("pack", "none.edge").code == 2
    # Of a packed one another one can be made, which is the same.
    assert edgeattn("pack", target, "-o", "again.zip").code == 0
    assert (tmp_path / "again.zip").read_bytes() == target.read_bytes()


# What is refused


def rewritten(packed, tmp_path, change=lambda entry: None, add=(), compression=0):
    """The packed bundle once more, entries changed and others added behind."""
    target = tmp_path / "hostile.zip"
    with zipfile.ZipFile(packed) as archive, zipfile.ZipFile(target, "w") as made:
        for entry in archive.infolist():
            data = archive.read(entry)
            copy = zipfile.ZipInfo(entry.filename)
            copy.external_attr = entry.external_attr
            copy.compress_type = compression
            change(copy)
            made.writestr(copy, data)
        for entry, data in add:
            made.writestr(entry, data)
    return target


def entry(name, mode=stat.S_IFREG | 0o644):
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    return made


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../evil.txt", "leaves the bundle"),
        ("/tmp/evil.txt", "leaves the bundle"),
        ("a/../../evil.txt", "leaves the bundle"),
        ("..\\evil.txt", "leaves the bundle"),
        ("C:evil.txt", "leaves the bundle"),
        ("evil/", "no plain file"),
        ("evil.txt", "does not list evil.txt"),
        (MANIFEST, "there twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names(packed, tmp_path, cache, name, said):
    hostile = rewritten(packed, tmp_path, add=[(entry(name), b"evil")])
    with pytest.raises(UnsafeModelError, match=said):
        Bundle.open(hostile)
    assert not list(tmp_path.rglob("evil*"))
    assert not cache.exists()


def test_a_link(packed, tmp_path, cache):
    link = entry("dense.link", stat.S_IFLNK | 0o777)
    hostile = rewritten(packed, tmp_path, add=[(link, b"/etc/passwd")])
    with pytest.raises(UnsafeModelError, match="no plain file"):
        Bundle.open(hostile)

    def linked(entry):
        if entry.filename == "reference.npz":
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16

    with pytest.raises(UnsafeModelError, match="no plain file"):
        Bundle.open(rewritten(packed, tmp_path, linked))
    assert not cache.exists()


def test_what_grows(packed, tmp_path, cache):
    hostile = rewritten(packed, tmp_path, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsafeModelError, match="is compressed"):
        Bundle.open(hostile)
    assert not cache.exists()


def test_sizes_that_are_not_true(packed, tmp_path, cache):
    """The list at the end says how big each file is: 4 GB where there are a few bytes."""
    data = bytearray(packed.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 20 : at + 28] = b"\xfe\xff\xff\xff" * 2
    hostile = tmp_path / "hostile.zip"
    hostile.write_bytes(data)
    with pytest.raises(UnsafeModelError, match="is said to hold"):
        Bundle.open(hostile)
    assert not cache.exists()


def test_files_that_share_their_bytes(packed, tmp_path, cache):
    """A flat bomb: many names, all of the one file's bytes."""
    with zipfile.ZipFile(packed) as archive:
        biggest = max(archive.infolist(), key=lambda item: item.file_size)
    count = 1 + packed.stat().st_size // biggest.file_size
    target = tmp_path / "hostile.zip"
    target.write_bytes(packed.read_bytes())
    with zipfile.ZipFile(target, "a") as archive:
        for number in range(count):
            copy = zipfile.ZipInfo(f"copy{number}")
            for name in ("header_offset", "CRC", "file_size", "compress_size"):
                setattr(copy, name, getattr(biggest, name))
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
        archive._didModify = True
    with pytest.raises(UnsafeModelError, match="more than it does"):
        Bundle.open(target)
    assert not cache.exists()


def test_many_files(packed, tmp_path):
    add = [(entry(f"{number}"), b"") for number in range(1001)]
    with pytest.raises(UnsafeModelError, match="over 1000"):
        Bundle.open(rewritten(packed, tmp_path, add=add))


def test_a_manifest_that_leaves_the_bundle(packed, tmp_path):
    with zipfile.ZipFile(packed) as archive:
        manifest = json.loads(archive.read(MANIFEST))
    manifest["reference"]["path"] = "../../reference.npz"
    target = tmp_path / "hostile.zip"
    with zipfile.ZipFile(target, "w") as made:
        made.writestr(entry(MANIFEST), json.dumps(manifest))
        made.writestr(entry("reference.npz"), b"")
    with pytest.raises(BundleError, match="leaves the bundle"):
        Bundle.open(target)


def test_what_is_no_packed_bundle(packed, tmp_path):
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(BundleError, match="Not a bundle"):
        Bundle.open(tmp_path / "text.zip")
    (tmp_path / "cut.zip").write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(BundleError, match="no packed bundle"):
        Bundle.open(tmp_path / "cut.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr(entry("hello.txt"), b"hello")
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        Bundle.open(tmp_path / "other.zip")


@pytest.mark.parametrize("seed", range(40))
def test_damage_anywhere_is_an_error_of_ours_or_noticed(packed, tmp_path, seed):
    random = np.random.default_rng(seed)
    data = bytearray(packed.read_bytes())
    for _ in range(int(random.integers(1, 4))):
        data[int(random.integers(4, len(data)))] = int(random.integers(256))
    target = tmp_path / "damaged.zip"
    target.write_bytes(data)
    try:
        opened = Bundle.open(target)
        opened.verify()
    except (BundleError, UnsafeModelError):
        return
    assert opened.manifest == Bundle.open(packed).manifest or data != packed.read_bytes()
    for item in opened.manifest.artifacts:
        assert artifacts.sha256(opened.path / item.path) == item.sha256
