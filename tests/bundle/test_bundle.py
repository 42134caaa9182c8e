"""Bundles: what is read, what is refused, and that a half-written one is never left."""

import json
import os

import numpy as np
import pytest
from artifacts import edit_manifest, rehash, samples, write_bundle, write_dense_bundle

from edgeattn.bundle import bundle as bundle_module
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.bundle.writer import check_target, writing
from edgeattn.errors import BundleError, OutputError


def first(data):
    return data["artifacts"][0]


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_manifest_survives_json(dense_bundle):
    again = Bundle.open(dense_bundle.path)
    assert again.manifest == dense_bundle.manifest
    assert json.loads((again.path / MANIFEST).read_text()) == again.manifest.to_json()


def test_reference_is_what_was_written(dense_bundle):
    dense_bundle.verify()
    np.testing.assert_array_equal(dense_bundle.reference()["input/x"], samples())


def test_select(dense_bundle):
    assert [item.format for item in dense_bundle.select()] == ["tflite", "onnx"]
    assert [item.format for item in dense_bundle.select(("onnx",), ("float32", "int8"))] == ["onnx"]
    with pytest.raises(BundleError, match="no artifact for onnx int8: it holds tflite float32, "):
        dense_bundle.select(("onnx",), ("int8",))


def test_an_empty_bundle_selects_nothing(tmp_path):
    made = write_bundle(tmp_path, [], {"input/x": samples()})
    with pytest.raises(BundleError, match="it holds nothing"):
        made.select()


def test_what_is_no_bundle(tmp_path):
    (tmp_path / "file").write_text("x")
    for path, message in [("nowhere", "No such"), (".", "Not a bundle"), ("file", "Not a bundle")]:
        with pytest.raises(BundleError, match=message) as told:
            Bundle.open(tmp_path / path)
        assert "edgeattn convert" in told.value.hint


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"not json",
        b"\xff\xfe\x00",
        b"[]",
        b"7",
        b"{}",
        b"null",
        b"[" * 100_000,
        b'{"format_version": 1}',
        b'{"format_version": "1"}',
        b'{"format_version": true}',
        b'{"format_version": 0}',
    ],
)
def test_manifest_that_is_none(tmp_path, text):
    (tmp_path / MANIFEST).write_bytes(text)
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(tmp_path)


def test_newer_layout(dense_bundle):
    edit_manifest(dense_bundle.path, lambda data: data.update(format_version=2))
    with pytest.raises(BundleError, match="newer edgeattn") as told:
        Bundle.open(dense_bundle.path)
    assert "upgrade" in told.value.hint


def test_huge_manifest(dense_bundle, monkeypatch):
    monkeypatch.setattr(bundle_module, "MAX_MANIFEST", 100)
    with pytest.raises(BundleError, match="over 100 bytes"):
        Bundle.open(dense_bundle.path)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.pop("artifacts"),
        lambda data: data.update(artifacts=7),
        lambda data: data.update(artifacts=[7]),
        lambda data: data.update(model="a"),
        lambda data: data["model"].pop("file"),
        lambda data: data["model"].update(parameters="many"),
        lambda data: data["reference"].pop("path"),
        lambda data: data["reference"].update(path=7),
        lambda data: data["reference"].update(samples=None),
        lambda data: data["reference"].pop("sha256"),
        lambda data: first(data).update(format="exe"),
        lambda data: first(data).update(scheme="float31"),
        lambda data: first(data).update(bytes=float("inf")),
        lambda data: first(data).update(bytes=float("nan")),
        lambda data: first(data).update(inputs=[]),
        lambda data: first(data).update(outputs=[]),
        lambda data: first(data).update(outputs={"a": 1}),
        lambda data: first(data)["inputs"][0].update(dtype="object"),
        lambda data: first(data)["inputs"][0].update(shape=[1, -3]),
        lambda data: first(data)["inputs"][0].update(shape=None),
        lambda data: first(data)["outputs"][0].update(scale=0),
        lambda data: first(data).update(attention=7),
        lambda data: first(data).update(achieved=[1]),
    ],
)
def test_manifest_of_the_wrong_types(dense_bundle, change):
    edit_manifest(dense_bundle.path, change)
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(dense_bundle.path)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "..", "", ".", "a\\..\\x"])
@pytest.mark.parametrize("where", ["artifact", "reference"])
def test_paths_that_leave_the_bundle(dense_bundle, path, where):
    def change(data):
        (first(data) if where == "artifact" else data["reference"])["path"] = path

    edit_manifest(dense_bundle.path, change)
    with pytest.raises(BundleError, match="leaves the bundle"):
        Bundle.open(dense_bundle.path)


def test_links_are_no_files_of_the_bundle(dense_bundle, tmp_path):
    outside = tmp_path / "outside.onnx"
    file = dense_bundle.path / "dense.float32.onnx"
    file.rename(outside)
    file.symlink_to(outside)
    with pytest.raises(BundleError, match=r"incomplete: dense\.float32\.onnx"):
        dense_bundle.verify()


def test_a_folder_that_is_a_link_is_none_of_the_bundle(dense_bundle, tmp_path):
    (tmp_path / "outside").mkdir()
    (dense_bundle.path / "dense.float32.onnx").rename(tmp_path / "outside" / "m.onnx")
    (dense_bundle.path / "sub").symlink_to(tmp_path / "outside")
    edit_manifest(dense_bundle.path, lambda data: data["artifacts"][1].update(path="sub/m.onnx"))
    with pytest.raises(BundleError, match=r"incomplete: sub/m\.onnx"):
        Bundle.open(dense_bundle.path).verify()


def test_a_file_in_a_folder_of_the_bundle(dense_bundle):
    (dense_bundle.path / "sub").mkdir()
    (dense_bundle.path / "dense.float32.onnx").rename(dense_bundle.path / "sub" / "m.onnx")
    edit_manifest(dense_bundle.path, lambda data: data["artifacts"][1].update(path="sub/m.onnx"))
    Bundle.open(dense_bundle.path).verify()


def test_a_bundle_behind_a_link_is_one(dense_bundle, tmp_path):
    (tmp_path / "link").symlink_to(dense_bundle.path)
    Bundle.open(tmp_path / "link").verify()


@pytest.mark.parametrize("name", ["dense.float32.tflite", "dense.float32.onnx", "reference.npz"])
def test_every_changed_byte_is_seen(dense_bundle, name):
    file = dense_bundle.path / name
    whole = file.read_bytes()
    for position in (0, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(BundleError, match=f"{name} is not the file"):
            dense_bundle.verify()
    file.write_bytes(whole[:-1])
    with pytest.raises(BundleError, match=f"{name} is not the file"):
        dense_bundle.verify()
    file.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        dense_bundle.verify()
    os.mkfifo(file)  # which would never end
    with pytest.raises(BundleError, match=f"{name} is missing"):
        dense_bundle.verify()


def test_a_reference_that_is_no_npz(dense_bundle):
    (dense_bundle.path / "reference.npz").write_bytes(b"something else")
    rehash(dense_bundle.path)
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(dense_bundle.path).reference()


# Writing.


def test_writing_appears_at_the_end(tmp_path):
    target = tmp_path / "deep" / "er" / "a.edge"
    with writing(target) as folder:
        (folder / "x").write_text("x")
        assert folder.parent == target.parent
        assert not target.exists()
    assert listing(tmp_path) == ["deep", "deep/er", "deep/er/a.edge", "deep/er/a.edge/x"]
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o777 & ~mask


def write_half(target, error):
    with writing(target, force=True) as folder:
        (folder / "x").write_text("x")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, OSError])
def test_writing_that_ends_early_leaves_nothing(tmp_path, error):
    with pytest.raises((error, OutputError)):
        write_half(tmp_path / "deep" / "a.edge", error)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_writing_that_ends_early_leaves_the_old_one(tmp_path, error):
    old = write_dense_bundle(tmp_path / "a.edge")
    before = listing(tmp_path)
    with pytest.raises((error, OutputError)):
        write_half(old.path, error)
    assert listing(tmp_path) == before
    old.verify()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_the_old_one_survives_an_end_between_the_two_renames(tmp_path, error, monkeypatch):
    old = write_dense_bundle(tmp_path / "a.edge")
    before = listing(tmp_path)
    rename = type(tmp_path).rename
    calls = []

    def second_fails(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise error
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", second_fails)
    with pytest.raises((error, OutputError)), writing(old.path, force=True) as folder:
        (folder / "x").write_text("x")
    assert listing(tmp_path) == before
    old.verify()


def test_force_replaces_a_bundle(tmp_path):
    old = write_dense_bundle(tmp_path / "a.edge")
    with writing(old.path, force=True) as folder:
        (folder / "new").write_text("x")
    assert listing(tmp_path) == ["a.edge", "a.edge/new"]


def test_targets_that_are_refused(tmp_path):
    bundle = write_dense_bundle(tmp_path / "a.edge").path
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(bundle)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name, force, message in [
        ("a.edge", False, "exists"),
        ("file", True, "not a folder"),
        ("link", True, "not a folder"),
        ("photos", True, "not a bundle"),
        ("empty", False, "exists"),
    ]:
        with pytest.raises(OutputError, match=message):
            check_target(tmp_path / name, force=force)
        with pytest.raises(OutputError, match=message), writing(tmp_path / name, force=force):
            pytest.fail("nothing is to be done")
    check_target(bundle, force=True)
    check_target(tmp_path / "empty", force=True)
    check_target(tmp_path / "new", force=False)


def test_nowhere_to_write(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(OutputError, match="Cannot write to"),
        writing(tmp_path / "file" / "a.edge"),
    ):
        pytest.fail("there is no folder to write in")
