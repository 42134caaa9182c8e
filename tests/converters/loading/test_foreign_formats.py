"""Files of other libraries, and other files, are named as what they are."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeattn import inspection
from edgeattn.bundle.not_a_bundle import not_a_bundle
from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.inspection import _next_step
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.options import ModelSource


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.keras"))
    return stream.getvalue()


def _array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


def _safetensors(length: int) -> bytes:
    """A header of ``length`` bytes; 60 is '<', with which a web page would begin."""
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(length)
    return struct.pack("<Q", length) + header + bytes(4)


KERAS_JSON = json.dumps({"class_name": "Sequential", "config": {"layers": []}}).encode()
TENSORFLOW_JS = b'{"format": "layers-model", "modelTopology": {"class_name": "Sequential"}}'
# Core ML: specificationVersion 4, and a description with an input.
CORE_ML = b"\x08\x04\x12\x1c\x0a\x0b\x0a\x05image" + bytes(40)


@pytest.mark.parametrize(
    ("name", "content", "message", "hint"),
    [
        ("page.h5", b"<!DOCTYPE html><html>404</html>", "a web page", "Download"),
        ("page.keras", b"\n<HTML><body>", "a web page", "Download"),
        ("error.h5", b'<?xml version="1.0"?><Error>AccessDenied</Error>', "an XML", "Download"),
        ("net.xml", b'<?xml version="1.0"?><net name="a">', "an OpenVINO", "of Keras"),
        ("model.safetensors", _safetensors(60), "safetensors", "model.save"),
        ("model.bin", _safetensors(88), "safetensors", "model.save"),
        ("model.gguf", b"GGUF\3\0\0\0" + bytes(64), "GGUF", "of Keras"),
        ("model.pte", b"\x14\0\0\0ET12" + bytes(64), "ExecuTorch", "of Keras"),
        ("model.mlmodel", CORE_ML, "Core ML", "of Keras"),
        ("model.json", TENSORFLOW_JS, "TensorFlow.js", "tensorflowjs_converter"),
        ("model.json", KERAS_JSON, "an architecture", "--architecture model.json"),
        ("model.h5", KERAS_JSON, "an architecture", "--architecture model.h5"),
        (
            "model.yaml",
            b"backend: tensorflow\nclass_name: Model\n",
            "an architecture",
            "--architecture FILE.json",
        ),
        ("frozen.pb", b"\n\x1f\n\x01x\x12\x0bPlaceholder" + bytes(60), "a graph", "saved_model"),
        ("train.py", b"import keras\n", "a program", "model.save"),
        ("train.ipynb", b'{"cells": [], "nbformat": 4}', "a program", "model.save"),
        ("model.h5.gz", gzip.compress(b"x" * 99, mtime=0), "a gzip archive", "Unpack"),
        ("model.h5", bz2.compress(b"x" * 99), "a bzip2 archive", "Unpack"),
        ("model.keras", lzma.compress(b"x" * 99), "an xz archive", "Unpack"),
        ("model.tar", _tar(), "a tar archive", "Unpack"),
        ("x.npy", _array(), "a NumPy array", "samples"),
        ("plot.h5", b"\x89PNG\r\n\x1a\n" + bytes(20), "an image", "Pass the"),
        ("paper.h5", b"%PDF-1.4\n%\xe2\xe3", "a PDF", "Pass the"),
        ("notes.h5", b"hello\n", "it is text", "model.save"),
        ("other.h5", b"\1\2\3\xff" * 20, "an unknown format", "model.save"),
    ],
)
def test_files(name: str, content: bytes, message: str, hint: str, tmp_path: Path) -> None:
    """A file that begins with '<', as some safetensors files do, is not always a web page."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnsupportedModelError) as error:
        audit_file(path)
    assert message in error.value.message
    assert hint in str(error.value.hint)
    assert error.value.exit_code == 3


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("name", ["model.pkl", "model.joblib", "model.pickle"])
def test_pickles_of_every_protocol_are_refused(name: str, protocol: int, tmp_path: Path) -> None:
    """Those of the protocols 0 and 1 do not begin with a magic number."""
    path = tmp_path / name
    path.write_bytes(pickle.dumps({"a": [1, 2]}, protocol=protocol))
    with pytest.raises(UnsafeModelError, match="Python pickle"):
        audit_file(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_old_files_of_pytorch_in_every_protocol(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=protocol) + bytes(64))
    with pytest.raises(UnsupportedModelError, match="is a PyTorch file"):
        audit_file(path)


def _zip(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return path


@pytest.mark.parametrize(
    ("names", "message", "hint"),
    [
        (["x.npy", "y.npy"], "2 NumPy arrays", "--samples"),
        (["readme.txt", "run/model.keras"], "contains a model: run/model.keras", "Unpack"),
        (
            ["export/saved_model.pb", "export/variables/variables.index"],
            "contains a model: export",
            "Unpack",
        ),
        (["a.txt"], "it has no config.json", "model.save"),
    ],
)
@pytest.mark.parametrize("name", ["model.keras", "model.zip"])
def test_archives(names: list[str], message: str, hint: str, name: str, tmp_path: Path) -> None:
    path = _zip(tmp_path / name, *names)
    # A .zip file without a manifest was called a damaged bundle.
    assert inspection.file_kind(path) == inspection.KERAS
    with pytest.raises(UnsupportedModelError) as error:
        audit_file(path)
    assert message in error.value.message
    assert hint in str(error.value.hint)


def test_a_packed_bundle_is_still_one(tmp_path: Path) -> None:
    path = _zip(tmp_path / "model.zip", "manifest.json", "model.onnx")
    assert inspection.file_kind(path) == inspection.BUNDLE


def test_folders_with_a_model_in_them(tmp_path: Path) -> None:
    """Folders of MLflow and of checkpoints, for example, have the model further inside."""
    with pytest.raises(UnsupportedModelError, match="contains no model") as error:
        audit_file(tmp_path)
    assert "model.save" in str(error.value.hint)
    (tmp_path / "data" / "model").mkdir(parents=True)
    (tmp_path / "data" / "model" / "saved_model.pb").write_bytes(b"\x08\x01")
    with pytest.raises(UnsupportedModelError) as error:
        audit_file(tmp_path)
    assert error.value.hint == f"Pass the model in it: {tmp_path / 'data' / 'model'}"


# ir_version 8, then the producer's name, the operator sets or the graph.
ONNX = (
    b"\x08\x08\x12\x07tf2onnx\x1a\x05" + bytes(20),
    b"\x08\x0a\x3a\x10" + bytes(20),
    b"\x08\x03\x42\x02" + bytes(20),
)


@pytest.mark.parametrize("content", ONNX)
@pytest.mark.parametrize("name", ["model.onnx", "model.keras", "model"])
def test_onnx_models_are_known_by_their_content(name: str, content: bytes, tmp_path: Path) -> None:
    """``inspect`` of one with another suffix advised to inspect it."""
    path = tmp_path / name
    path.write_bytes(content)
    assert inspection.file_kind(path) == inspection.ONNX
    assert audit_file(path).kind == "onnx"
    assert "edgeattn inspect" in str(not_a_bundle(path).hint)


@pytest.mark.parametrize("content", [CORE_ML, b"\x08\x01\x12\x1c\x0a\x0b\x0a\x05serve" + bytes(40)])
def test_other_protobufs_are_not_onnx(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    assert inspection.file_kind(path) == inspection.KERAS
    with pytest.raises(UnsupportedModelError):
        audit_file(path)


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("model.keras", "edgeattn convert model.keras"),
        ("-model.keras", "edgeattn convert ./-model.keras"),
        ("my model's.h5", """edgeattn convert 'my model'"'"'s.h5'"""),
        ("../a/b.h5", "edgeattn convert ../a/b.h5"),
    ],
)
def test_the_next_command_names_any_path(path: str, command: str) -> None:
    assert _next_step(ModelSource(path), "", {}, ()) == command
    source = ModelSource(path, custom_objects="-my layers.py", trust="a" * 64)
    assert _next_step(source, "", {}, ()) == (
        f"{command} --custom-objects '-my layers.py' --trust {'a' * 64}"
    )
