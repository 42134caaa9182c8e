"""Packed bundles: reproducible bytes, use by every command, and refusal of hostile files."""

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
from edgeattn.bundle.packing import pack
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


def test_contents_equal_those_of_the_bundle(packed, dense_bundle, cache):
    opened = Bundle.open(packed)
    assert opened.manifest == dense_bundle.manifest
    assert opened.path.name == "dense.edge"
    assert {p.name: p.read_bytes() for p in opened.path.iterdir()} == {
        p.name: p.read_bytes() for p in dense_bundle.path.iterdir()
    }
    assert cache in opened.path.parents
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_equal_bundles_give_equal_bytes(packed, dense_bundle, tmp_path):
    for file in dense_bundle.path.iterdir():
        os.utime(file, (0, 0))
        file.chmod(0o600)
    again = tmp_path / "again.zip"
    pack(Bundle.open(dense_bundle.path), again)
    assert again.read_bytes() == packed.read_bytes()


def test_it_is_a_standard_zip_file(packed, dense_bundle):
    with zipfile.ZipFile(packed) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == MANIFEST
        assert {e.compress_type for e in archive.infolist()} == {zipfile.ZIP_STORED}


def test_unlisted_files_are_not_packed(dense_bundle, tmp_path):
    (dense_bundle.path / "notes.txt").write_text("private")
    target = tmp_path / "dense.zip"
    pack(dense_bundle, target)
    with zipfile.ZipFile(target) as archive:
        assert "notes.txt" not in archive.namelist()


def test_a_changed_bundle_is_not_packed(edgeattn, dense_bundle, tmp_path):
    (dense_bundle.path / "reference.npz").write_bytes(b"x")
    result = edgeattn("pack", "dense.edge")
    assert result.code == 2
    assert "reference.npz has changed" in result.err
    assert not list(tmp_path.glob("*.zip"))


def test_existing_files_are_not_overwritten(packed, dense_bundle, tmp_path):
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


def test_damage_in_the_cache_is_detected(packed):
    file = Bundle.open(packed).path / "reference.npz"
    size = file.stat().st_size
    file.write_bytes(b"x" * size)
    with pytest.raises(BundleError, match="has changed"):
        Bundle.open(packed)
    file.unlink()
    Bundle.open(packed)  # missing files are unpacked again


def test_a_temporary_folder_replaces_an_unwritable_cache(packed, dense_bundle, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    assert Bundle.open(packed).manifest == dense_bundle.manifest


# Use by commands


def test_load_accepts_a_packed_bundle(packed):
    model = edgeattn.load(packed)
    expected = artifacts.dense(np.float32([[1, 2, 3]]))
    assert model([1, 2, 3])["score"].tolist() == expected.tolist()


def test_commands_accept_a_packed_bundle(edgeattn, packed, tmp_path):
    result = edgeattn("validate", packed, "--json")
    assert (result.code, result.document["verdict"]) == (0, "pass")
    assert edgeattn("inspect", packed, "--json").document["kind"] == "bundle"
    np.save(tmp_path / "x.npy", artifacts.samples())
    result = edgeattn("run", packed, "--input", "x.npy", "-o", "y.npz")
    assert result.code == 0
    expected = artifacts.dense(artifacts.samples())
    assert np.array_equal(np.load(tmp_path / "y.npz")["score"], expected)
    result = edgeattn("bench", packed, "--runs", "1", "--threads", "1", "--json")
    assert result.code == 0


def test_selftest_accepts_a_packed_bundle(packed):
    command = [sys.executable, "-P", "-m", "edgeattn.selftest", str(packed)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.endswith("verdict: pass\n")


def test_the_pack_command(edgeattn, dense_bundle, tmp_path):
    result = edgeattn("pack", "dense.edge", "--json")
    assert (result.code, result.err) == (0, "")
    target = tmp_path / "dense.edge.zip"
    assert result.document == {
        "path": str(target),
        "bytes": target.stat().st_size,
        "sha256": artifacts.sha256(target),
    }
    assert edgeattn("pack", "dense.edge").code == 2
    assert edgeattn("pack", "dense.edge", "--force", "--quiet").out == f"{target}\n"
    assert edgeattn("pack", "none.edge").code == 2
    # Packing a packed bundle gives the same file.
    assert edgeattn("pack", target, "-o", "again.zip").code == 0
    assert (tmp_path / "again.zip").read_bytes() == target.read_bytes()


# Hostile files


def rewritten(packed, tmp_path, change=lambda entry: None, add=(), compression=0):
    """A copy of the packed bundle with changed and additional entries."""
    target = tmp_path / "hostile.zip"
    with zipfile.ZipFile(packed) as archive, zipfile.ZipFile(target, "w") as output:
        for entry in archive.infolist():
            data = archive.read(entry)
            copy = zipfile.ZipInfo(entry.filename)
            copy.external_attr = entry.external_attr
            copy.compress_type = compression
            change(copy)
            output.writestr(copy, data)
        for entry, data in add:
            output.writestr(entry, data)
    return target


def entry(name, mode=stat.S_IFREG | 0o644):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil.txt", "path outside the bundle"),
        ("/tmp/evil.txt", "path outside the bundle"),
        ("a/../../evil.txt", "path outside the bundle"),
        ("..\\evil.txt", "path outside the bundle"),
        ("C:evil.txt", "path outside the bundle"),
        ("evil/", "not a regular file"),
        ("evil.txt", "does not list evil.txt"),
        (MANIFEST, "included twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_names(packed, tmp_path, cache, name, reason):
    hostile = rewritten(packed, tmp_path, add=[(entry(name), b"evil")])
    with pytest.raises(UnsafeModelError, match=reason):
        Bundle.open(hostile)
    assert not list(tmp_path.rglob("evil*"))
    assert not cache.exists()


def test_links_are_refused(packed, tmp_path, cache):
    link = entry("dense.link", stat.S_IFLNK | 0o777)
    hostile = rewritten(packed, tmp_path, add=[(link, b"/etc/passwd")])
    with pytest.raises(UnsafeModelError, match="not a regular file"):
        Bundle.open(hostile)

    def linked(entry):
        if entry.filename == "reference.npz":
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16

    with pytest.raises(UnsafeModelError, match="not a regular file"):
        Bundle.open(rewritten(packed, tmp_path, linked))
    assert not cache.exists()


def test_compressed_entries_are_refused(packed, tmp_path, cache):
    hostile = rewritten(packed, tmp_path, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsafeModelError, match="is compressed"):
        Bundle.open(hostile)
    assert not cache.exists()


def test_false_sizes_are_refused(packed, tmp_path, cache):
    """The central directory declares 4 GB for a file of a few bytes."""
    data = bytearray(packed.read_bytes())
    offset = data.rindex(b"PK\x01\x02")
    data[offset + 20 : offset + 28] = b"\xfe\xff\xff\xff" * 2
    hostile = tmp_path / "hostile.zip"
    hostile.write_bytes(data)
    with pytest.raises(UnsafeModelError, match="declares a size of"):
        Bundle.open(hostile)
    assert not cache.exists()


def test_entries_that_share_bytes_are_refused(packed, tmp_path, cache):
    """A zip bomb without compression: many names for the bytes of one file."""
    with zipfile.ZipFile(packed) as archive:
        largest = max(archive.infolist(), key=lambda item: item.file_size)
    count = 1 + packed.stat().st_size // largest.file_size
    target = tmp_path / "hostile.zip"
    target.write_bytes(packed.read_bytes())
    with zipfile.ZipFile(target, "a") as archive:
        for number in range(count):
            copy = zipfile.ZipInfo(f"copy{number}")
            for name in ("header_offset", "CRC", "file_size", "compress_size"):
                setattr(copy, name, getattr(largest, name))
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
        archive._didModify = True
    with pytest.raises(UnsafeModelError, match="exceed its own size"):
        Bundle.open(target)
    assert not cache.exists()


def test_too_many_files_are_refused(packed, tmp_path):
    add = [(entry(f"{number}"), b"") for number in range(1001)]
    with pytest.raises(UnsafeModelError, match="over 1000"):
        Bundle.open(rewritten(packed, tmp_path, add=add))


def test_a_manifest_with_a_path_outside_the_bundle(packed, tmp_path):
    with zipfile.ZipFile(packed) as archive:
        manifest = json.loads(archive.read(MANIFEST))
    manifest["reference"]["path"] = "../../reference.npz"
    target = tmp_path / "hostile.zip"
    with zipfile.ZipFile(target, "w") as output:
        output.writestr(entry(MANIFEST), json.dumps(manifest))
        output.writestr(entry("reference.npz"), b"")
    with pytest.raises(BundleError, match="path outside the bundle"):
        Bundle.open(target)


def test_files_that_are_not_packed_bundles(packed, tmp_path):
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(BundleError, match="Not a bundle"):
        Bundle.open(tmp_path / "text.zip")
    (tmp_path / "cut.zip").write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(BundleError, match="not a packed bundle"):
        Bundle.open(tmp_path / "cut.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr(entry("hello.txt"), b"hello")
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        Bundle.open(tmp_path / "other.zip")


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_detected_or_harmless(packed, tmp_path, seed):
    random = np.random.default_rng(seed)
    data = bytearray(packed.read_bytes())
    for _ in range(int(random.integers(1, 4))):
        data[int(random.integers(4, len(data)))] = int(random.integers(256))
    target = tmp_path / "damaged.zip"
    target.write_bytes(data)
    try:
        opened = Bundle.open(target)
    except (BundleError, UnsafeModelError):
        return
    assert opened.manifest == Bundle.open(packed).manifest or data != packed.read_bytes()
    for item in opened.manifest.artifacts:
        assert artifacts.sha256(opened.path / item.path) == item.sha256
