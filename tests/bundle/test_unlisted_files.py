"""Files in a bundle's folder that its manifest does not list."""

import os
from pathlib import Path

import artifacts
import numpy as np
import pytest
from artifacts import samples

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.packing import pack
from edgeattn.errors import BundleError, UnsafeModelError
from edgeattn.files import hidden_folder, reserved

UNLISTED = ["model.data", "stray.onnx", "weights", "sub/notes.txt", ".hidden", "sub/.a/b.bin"]
HARMLESS = ["report.html", "junit.xml", "README.md", "Labels.TXT", ".DS_Store", "._model.onnx"]


def add(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x")


@pytest.mark.parametrize("name", UNLISTED)
def test_unlisted_files_are_refused(name: str, dense_bundle: Bundle) -> None:
    add(dense_bundle.path, name)
    with pytest.raises(UnsafeModelError, match=f"its manifest does not list {name}."):
        Bundle.open(dense_bundle.path)
    with pytest.raises(UnsafeModelError, match="does not list"):
        dense_bundle.verify()


def test_documents_and_files_of_the_system_are_accepted(dense_bundle: Bundle) -> None:
    for name in HARMLESS:
        add(dense_bundle.path, name)
    (dense_bundle.path / "empty").mkdir()
    Bundle.open(dense_bundle.path)


def test_links_and_special_files_are_unlisted_files(dense_bundle: Bundle, tmp_path: Path) -> None:
    (dense_bundle.path / "folder").symlink_to(tmp_path)
    (dense_bundle.path / "file").symlink_to("/etc/hostname")
    os.mkfifo(dense_bundle.path / "pipe")
    with pytest.raises(UnsafeModelError, match="does not list file, folder, pipe"):
        Bundle.open(dense_bundle.path)


def test_many_unlisted_files_are_counted(dense_bundle: Bundle) -> None:
    for number in range(2003):
        add(dense_bundle.path, f"{number:04}.bin")
    with pytest.raises(UnsafeModelError, match=r"list 0000.bin, 0001.bin, 0002.bin and 2,000 more"):
        Bundle.open(dense_bundle.path)


def test_files_in_listed_folders_are_listed(tmp_path: Path) -> None:
    bundle = artifacts.write_dense_bundle(tmp_path / "b.edge", formats=("onnx",))
    (bundle.path / "sub").mkdir()
    (bundle.path / "dense.float32.onnx").rename(bundle.path / "sub" / "m.onnx")
    artifacts.edit_manifest(
        bundle.path, lambda data: data["artifacts"][0].update(path="./sub//m.onnx")
    )
    Bundle.open(bundle.path)
    add(bundle.path, "sub/n.onnx")
    with pytest.raises(UnsafeModelError, match=r"list sub/n\.onnx"):
        Bundle.open(bundle.path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_an_error(dense_bundle: Bundle) -> None:
    closed = dense_bundle.path / "closed"
    closed.mkdir(mode=0o000)
    try:
        with pytest.raises(BundleError, match="closed cannot be read"):
            Bundle.open(dense_bundle.path)
    finally:
        closed.chmod(0o700)


def test_a_bundle_can_be_opened_while_it_is_signed(dense_bundle: Bundle) -> None:
    with reserved(dense_bundle.path / "manifest.json.sig") as folder:
        (folder / "manifest.json").write_bytes(b"x")
        Bundle.open(dense_bundle.path)
    # As a killed process leaves it.
    hidden_folder(dense_bundle.path / "manifest.json.sig").mkdir()
    add(hidden_folder(dense_bundle.path / "manifest.json.sig"), "lock")
    Bundle.open(dense_bundle.path)


def test_commands_refuse_them_before_anything_runs(edgeattn, dense_bundle, tmp_path) -> None:
    add(dense_bundle.path, "model.data")
    np.save(tmp_path / "x.npy", samples())
    for arguments in (
        ("validate", "dense.edge"),
        ("inspect", "dense.edge"),
        ("run", "dense.edge", "--input", "x.npy"),
        ("pack", "dense.edge"),
    ):
        result = edgeattn(*arguments)
        assert (result.code, result.out) == (4, ""), arguments
        assert "does not list model.data." in result.err
        assert "Move files that do not belong to it" in result.err


def test_documents_are_not_packed(dense_bundle: Bundle, tmp_path: Path) -> None:
    add(dense_bundle.path, "report.html")
    pack(Bundle.open(dense_bundle.path), tmp_path / "dense.zip")
    assert not (Bundle.open(tmp_path / "dense.zip").path / "report.html").exists()
