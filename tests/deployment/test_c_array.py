"""``edgeattn pack --c-array``: the bytes, sizes and operators of a file as C++ source."""

import re

import artifacts
import pytest

from edgeattn.schemes import MICRO
from edgeattn.version import __version__


def micro(data, arena=4321):
    """Make the TFLite artifacts files for microcontrollers."""
    for entry in data["artifacts"]:
        if entry["format"] == "tflite":
            entry["runtimes"] = {MICRO: ">=0"}
            entry["achieved"]["arena_bytes"] = arena


@pytest.fixture
def bundle(tmp_path):
    bundle = artifacts.write_dense_bundle(tmp_path / "dense.edge")
    artifacts.edit_manifest(bundle.path, micro)
    return bundle


def test_source_and_header(bundle, tmp_path, edgeattn):
    result = edgeattn("pack", bundle.path, "--c-array")
    assert result.code == 0
    folder = tmp_path / "dense-c"
    assert f"Wrote {folder}: model.h, model.cc" in result.out
    assert "4,321 bytes of RAM for the arena, 1 kind of operators" in result.out
    header, source = ((folder / name).read_text() for name in ("model.h", "model.cc"))
    content = (bundle.path / "dense.float32.tflite").read_bytes()
    assert bytes(int(n, 16) for n in re.findall(r"0x([0-9a-f]{2})", source)) == content
    assert f"kModelBytes = {len(content)};" in header
    assert "kArenaBytes = 4321;" in header
    assert "kOperatorCount = 1;" in header
    assert re.findall(r"resolver\.Add(\w+)\(\)", header) == ["FullyConnected"]
    assert f"written by edgeattn {__version__}" in header
    assert "//   input 0: x (1, 3) float32" in header


def test_json(bundle, tmp_path, edgeattn):
    result = edgeattn("pack", bundle.path, "--c-array", "--json", "-o", tmp_path / "here")
    size = (bundle.path / "dense.float32.tflite").stat().st_size
    assert result.document == {
        "path": str(tmp_path / "here"),
        "artifact": "dense.float32.tflite",
        "flash_bytes": size,
        "arena_bytes": 4321,
        "operators": ["FullyConnected"],
    }


def test_an_existing_folder(bundle, tmp_path, edgeattn):
    assert edgeattn("pack", bundle.path, "--c-array", "-q").out.strip() == str(tmp_path / "dense-c")
    again = edgeattn("pack", bundle.path, "--c-array")
    assert (again.code, "exists" in again.err) == (2, True)
    assert edgeattn("pack", bundle.path, "--c-array", "--force").code == 0
    # A folder with anything else is never replaced.
    (tmp_path / "dense-c" / "main.cc").touch()
    assert edgeattn("pack", bundle.path, "--c-array", "--force").code == 2
    assert (tmp_path / "dense-c" / "main.cc").exists()


def test_a_bundle_without_such_a_file(tmp_path, edgeattn):
    artifacts.write_dense_bundle(tmp_path / "dense.edge")
    result = edgeattn("pack", tmp_path / "dense.edge", "--c-array")
    assert result.code == 2
    assert "has no file for microcontrollers" in result.err
    assert "--target tflite-micro" in result.err


def test_a_file_without_the_size_of_its_arena(bundle, tmp_path, edgeattn):
    artifacts.edit_manifest(
        bundle.path, lambda data: [e["achieved"].pop("arena_bytes", 0) for e in data["artifacts"]]
    )
    assert "has no size of its arena" in edgeattn("pack", bundle.path, "--c-array").err
    artifacts.edit_manifest(bundle.path, lambda data: micro(data, arena="0]; evil"))
    assert edgeattn("pack", bundle.path, "--c-array").code == 2
    assert not (tmp_path / "dense-c").exists()


def test_the_scheme(bundle, edgeattn):
    assert edgeattn("pack", bundle.path, "--c-array", "--scheme", "float32").code == 0
    wrong = edgeattn("pack", bundle.path, "--c-array", "--scheme", "int8", "--force")
    assert (wrong.code, "has no int8 file" in wrong.err) == (2, True)
    without = edgeattn("pack", bundle.path, "--scheme", "float32")
    assert (without.code, "--scheme has no effect" in without.err) == (2, True)


def test_names_cannot_leave_their_comment(bundle, tmp_path, edgeattn):
    def rename(data):
        for entry in data["artifacts"]:
            entry["inputs"][0]["name"] = "x\n#error\\"

    artifacts.edit_manifest(bundle.path, rename)
    assert edgeattn("pack", bundle.path, "--c-array").code == 0
    header = (tmp_path / "dense-c" / "model.h").read_text()
    assert not any(line.startswith("#error") for line in header.splitlines())
    assert not any(line.endswith("\\") for line in header.splitlines())
