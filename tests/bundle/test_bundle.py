"""Bundles: reading, refusal of damaged ones, and writing all or nothing."""

import errno
import json
import os
import shlex
import shutil
import zipfile

import numpy as np
import pytest
from artifacts import edit_manifest, rehash, samples, write_bundle, write_dense_bundle

from edgeattn import files
from edgeattn.bundle import bundle as bundle_module
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.bundle.writer import check_new_bundle, new_bundle
from edgeattn.errors import BundleError, OutputError
from edgeattn.samples.npz import FREE_BYTES, MAX_RATIO, write_npz


def first(data):
    return data["artifacts"][0]


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_the_manifest_is_read_as_it_was_written(dense_bundle):
    opened = Bundle.open(dense_bundle.path)
    assert opened.manifest == dense_bundle.manifest
    assert json.loads((opened.path / MANIFEST).read_text()) == opened.manifest.to_json()


def test_the_reference_is_read_as_it_was_written(dense_bundle):
    np.testing.assert_array_equal(dense_bundle.reference()["input/x"], samples())


def test_select(dense_bundle):
    assert [item.format for item in dense_bundle.select()] == ["tflite", "onnx"]
    assert [item.format for item in dense_bundle.select(("onnx",), ("float32", "int8"))] == ["onnx"]
    with pytest.raises(
        BundleError, match="no artifact for onnx int8\\. Its artifacts: tflite float32, "
    ):
        dense_bundle.select(("onnx",), ("int8",))


def test_selecting_from_an_empty_bundle_fails(tmp_path):
    empty = write_bundle(tmp_path, [], {"input/x": samples()})
    with pytest.raises(BundleError, match="Its artifacts: none"):
        empty.select()


def test_paths_without_a_bundle(tmp_path):
    (tmp_path / "file").write_text("x")
    for path, message in [("nowhere", "No such"), (".", "Not a bundle"), ("file", "Not a bundle")]:
        with pytest.raises(BundleError, match=message) as caught:
            Bundle.open(tmp_path / path)
        assert "edgeattn convert" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(16)),
        ("my model.hdf5", b"\x89HDF\r\n\x1a\n"),
        ("saved/saved_model.pb", b"\x08\x01"),
    ],
)
def test_a_keras_model_is_not_a_bundle(tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path = path if path.parent == tmp_path else path.parent
    with pytest.raises(BundleError, match="is a Keras model, not a bundle") as caught:
        Bundle.open(path)
    assert caught.value.hint == f"Convert it first: edgeattn convert {shlex.quote(str(path))}"


def test_a_keras_archive_is_not_a_bundle(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    with pytest.raises(BundleError, match="is a Keras model, not a bundle") as caught:
        Bundle.open(path)
    assert caught.value.hint == f"Convert it first: edgeattn convert {path}"


def test_model_files_are_not_bundles(dense_bundle, tmp_path):
    for label in ("tflite", "onnx"):
        file = dense_bundle.artifact_path(dense_bundle.select((label,))[0])
        with pytest.raises(BundleError, match="is one file of a bundle") as caught:
            Bundle.open(file)
        assert caught.value.hint == f"Pass the bundle: {file.parent}"
        copy = tmp_path / f"copy.{label}"
        copy.write_bytes(file.read_bytes())
        with pytest.raises(BundleError, match="not a bundle") as caught:
            Bundle.open(copy)
        assert caught.value.hint == f"List its contents: edgeattn inspect {copy}"


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
def test_malformed_manifests(tmp_path, text):
    (tmp_path / MANIFEST).write_bytes(text)
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(tmp_path)


def test_newer_layouts_are_refused(dense_bundle):
    edit_manifest(dense_bundle.path, lambda data: data.update(format_version=2))
    with pytest.raises(BundleError, match="newer edgeattn") as caught:
        Bundle.open(dense_bundle.path)
    assert "upgrade" in caught.value.hint


def test_huge_manifests_are_refused(dense_bundle, monkeypatch):
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
        lambda data: first(data).update(format=["onnx"]),
        lambda data: first(data).update(path=7),
        lambda data: first(data).update(bytes=-1),
        lambda data: first(data).update(bytes=12.0),
        lambda data: first(data).update(bytes="12"),
        lambda data: first(data).update(bytes=True),
        lambda data: first(data)["inputs"][0].update(shape=[1, 3.0]),
        lambda data: first(data)["inputs"][0].update(shape=[True, 3]),
        lambda data: first(data)["inputs"][0].update(name=7),
        lambda data: first(data)["outputs"][0].update(dtype="int8", scale=1.0, zero_point=0.5),
        lambda data: first(data)["outputs"].append(first(data)["outputs"][0]),
        lambda data: first(data)["inputs"].append(first(data)["inputs"][0]),
        lambda data: first(data).update(attention=["attention/a"]),
        lambda data: first(data).update(attention=["score", "score"]),
        lambda data: first(data).update(achieved={"operators": {"ADD": -1}}),
        lambda data: first(data).update(achieved={"operators": {"ADD": 1.5}}),
        lambda data: first(data).update(achieved={"operators": 7}),
        lambda data: first(data).update(achieved={"weights": {"int8": "9"}}),
        lambda data: first(data).update(achieved={"weight_bytes": {"int8": True}}),
        lambda data: first(data).update(achieved={"kept_weights": {"float16": None}}),
        lambda data: first(data).update(achieved={"variables": -2}),
        lambda data: first(data).update(achieved={"computes_in": {"int8": {"ADD": -1}}}),
        lambda data: first(data).update(achieved={"computes_in": {"int8": 3}}),
        lambda data: first(data).update(achieved={"cell_clips": [float("nan")]}),
        lambda data: first(data).update(achieved={"cell_clips": [-1.0]}),
        lambda data: first(data).update(achieved={"cell_clips": 7}),
        lambda data: first(data).update(achieved={"calibration": 7}),
        lambda data: first(data).update(achieved={"calibration": {"digests": "ab"}}),
        lambda data: data["model"].update(parameters=-1),
        lambda data: data["model"].update(parameters=2.5),
        lambda data: data["model"].update(attention=[{"name": "attention/a"}]),
        lambda data: data["model"].update(attention=7),
        lambda data: data["reference"].update(samples=-3),
        lambda data: data["reference"].update(edge_cases=-1),
        lambda data: data["reference"].update(ordinary_edge_cases=1.5),
        lambda data: data.update(failures=[{"format": "onnx"}]),
        lambda data: data.update(failures=[7]),
    ],
)
def test_manifests_with_missing_or_invalid_values(dense_bundle, change):
    edit_manifest(dense_bundle.path, change)
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(dense_bundle.path)


def test_artifacts_of_one_label_are_refused(dense_bundle):
    """A command that selects by format and scheme would run only one of them."""

    def repeat(data):
        shutil.copyfile(
            dense_bundle.path / first(data)["path"], dense_bundle.path / "another.tflite"
        )
        data["artifacts"].append({**first(data), "path": "another.tflite"})

    edit_manifest(dense_bundle.path, repeat)
    with pytest.raises(BundleError, match="the artifact 'tflite float32' occurs more than once"):
        Bundle.open(dense_bundle.path)


@pytest.mark.parametrize("path", ["dense.float32.onnx", "./dense.float32.onnx", "reference.npz"])
def test_two_entries_for_one_file_are_refused(dense_bundle, path):
    edit_manifest(dense_bundle.path, lambda data: first(data).update(path=path))
    with pytest.raises(BundleError, match=r"the path '.*' occurs more than once"):
        Bundle.open(dense_bundle.path)


@pytest.mark.parametrize("path", ["manifest.json", "manifest.json.sig"])
def test_the_manifest_is_no_artifact(dense_bundle, path):
    edit_manifest(dense_bundle.path, lambda data: first(data).update(path=path))
    with pytest.raises(BundleError, match=f"'{path}' is the bundle's own file"):
        Bundle.open(dense_bundle.path)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "..", "", ".", "a\\..\\x"])
@pytest.mark.parametrize("owner", ["artifact", "reference"])
def test_paths_outside_the_bundle_are_refused(dense_bundle, path, owner):
    def change(data):
        (first(data) if owner == "artifact" else data["reference"])["path"] = path

    edit_manifest(dense_bundle.path, change)
    with pytest.raises(BundleError, match="path outside the bundle"):
        Bundle.open(dense_bundle.path)


def test_linked_files_are_refused(dense_bundle, tmp_path):
    outside = tmp_path / "outside.onnx"
    file = dense_bundle.path / "dense.float32.onnx"
    file.rename(outside)
    file.symlink_to(outside)
    with pytest.raises(BundleError, match=r"incomplete: dense\.float32\.onnx"):
        Bundle.open(dense_bundle.path)


def test_files_in_linked_folders_are_refused(dense_bundle, tmp_path):
    (tmp_path / "outside").mkdir()
    (dense_bundle.path / "dense.float32.onnx").rename(tmp_path / "outside" / "m.onnx")
    (dense_bundle.path / "sub").symlink_to(tmp_path / "outside")
    edit_manifest(dense_bundle.path, lambda data: data["artifacts"][1].update(path="sub/m.onnx"))
    with pytest.raises(BundleError, match=r"incomplete: sub/m\.onnx"):
        Bundle.open(dense_bundle.path)


def test_files_in_subfolders(dense_bundle):
    (dense_bundle.path / "sub").mkdir()
    (dense_bundle.path / "dense.float32.onnx").rename(dense_bundle.path / "sub" / "m.onnx")
    edit_manifest(dense_bundle.path, lambda data: data["artifacts"][1].update(path="sub/m.onnx"))
    Bundle.open(dense_bundle.path)


def test_a_link_to_a_bundle_can_be_opened(dense_bundle, tmp_path):
    (tmp_path / "link").symlink_to(dense_bundle.path)
    Bundle.open(tmp_path / "link")


@pytest.mark.parametrize("name", ["dense.float32.tflite", "dense.float32.onnx", "reference.npz"])
def test_changed_and_missing_files_are_refused(dense_bundle, name):
    file = dense_bundle.path / name
    content = file.read_bytes()
    for position in (0, len(content) // 2, len(content) - 1):
        file.write_bytes(
            content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        )
        with pytest.raises(BundleError, match=f"{name} has changed"):
            Bundle.open(dense_bundle.path)
    file.write_bytes(content[:-1])
    with pytest.raises(BundleError, match=f"{name} has changed"):
        Bundle.open(dense_bundle.path)
    file.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.open(dense_bundle.path)
    os.mkfifo(file)  # reading it would block forever
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.open(dense_bundle.path)


def test_a_reference_that_is_not_an_npz_file(dense_bundle):
    (dense_bundle.path / "reference.npz").write_bytes(b"something else")
    rehash(dense_bundle.path)
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(dense_bundle.path).reference()


@pytest.mark.parametrize("members", [1, 3, 40])
def test_a_reference_that_decompresses_without_end(dense_bundle, members):
    """Zeros compress a thousandfold, so the size of the file limits nothing."""
    reference = dense_bundle.reference()
    with zipfile.ZipFile(dense_bundle.path / "reference.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in [*reference, *map(str, range(members))]:
            archive.writestr(f"{name}.npy", b"")
        # Only declared, so that the test writes nothing large.
        archive.filelist[-1].file_size = FREE_BYTES + 1
    rehash(dense_bundle.path)
    with pytest.raises(BundleError, match="declare arrays of 268,435,457 bytes"):
        Bundle.open(dense_bundle.path).reference()


def test_a_reference_of_zeros_is_read(dense_bundle):
    """Above the ratio of sizes, and below the limit for small references."""
    zeros = {"input/x": np.zeros((100_000, 3), np.float32)}
    with (dense_bundle.path / "reference.npz").open("wb") as file:
        write_npz(file, zeros, compress=True)
    assert (dense_bundle.path / "reference.npz").stat().st_size * MAX_RATIO < zeros[
        "input/x"
    ].nbytes
    rehash(dense_bundle.path)
    assert Bundle.open(dense_bundle.path).reference()["input/x"].shape == (100_000, 3)


# Writing


def test_a_new_bundle_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "er" / "a.edge"
    with new_bundle(target) as folder:
        (folder / "x").write_text("x")
        assert folder.stat().st_dev == target.parent.stat().st_dev
        assert not target.exists()
    assert listing(tmp_path) == ["deep", "deep/er", "deep/er/a.edge", "deep/er/a.edge/x"]
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o777 & ~mask


def write_partly(target, error):
    with new_bundle(target, force=True) as folder:
        (folder / "x").write_text("x")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, OSError])
def test_an_error_leaves_no_files(tmp_path, error):
    with pytest.raises((error, OutputError)):
        write_partly(tmp_path / "deep" / "a.edge", error)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_error_leaves_the_old_bundle(tmp_path, error):
    old = write_dense_bundle(tmp_path / "a.edge")
    before = listing(tmp_path)
    with pytest.raises((error, OutputError)):
        write_partly(old.path, error)
    assert listing(tmp_path) == before
    Bundle.open(old.path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_error_between_the_two_renames_restores_the_old_bundle(tmp_path, error, monkeypatch):
    old = write_dense_bundle(tmp_path / "a.edge")
    before = listing(tmp_path)
    rename = type(tmp_path).rename
    calls = []

    def second_fails(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise error
        return rename(self, target)

    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    monkeypatch.setattr(type(tmp_path), "rename", second_fails)
    with pytest.raises((error, OutputError)), new_bundle(old.path, force=True) as folder:
        (folder / "x").write_text("x")
    assert listing(tmp_path) == before
    Bundle.open(old.path)


def test_force_replaces_a_bundle(tmp_path):
    old = write_dense_bundle(tmp_path / "a.edge")
    with new_bundle(old.path, force=True) as folder:
        (folder / "new").write_text("x")
    assert listing(tmp_path) == ["a.edge", "a.edge/new"]


def test_refused_targets(tmp_path):
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
            check_new_bundle(tmp_path / name, force=force)
        with pytest.raises(OutputError, match=message), new_bundle(tmp_path / name, force=force):
            pytest.fail("a refused target was opened")
    check_new_bundle(bundle, force=True)
    check_new_bundle(tmp_path / "empty", force=True)
    check_new_bundle(tmp_path / "new", force=False)


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(OutputError, match="Cannot write the bundle") as caught,
        new_bundle(tmp_path / "file" / "a.edge"),
    ):
        pytest.fail("no folder can exist")
    assert caught.value.hint == "Choose another folder with -o DIR."


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_only_a_full_disk_needs_space(tmp_path, number):
    with (
        pytest.raises(OutputError, match="Cannot write the bundle") as caught,
        new_bundle(tmp_path / "a.edge"),
    ):
        raise OSError(number, os.strerror(number))
    assert caught.value.hint == "Free some space, or choose another folder with -o DIR."
