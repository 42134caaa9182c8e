"""The audit of model files, which runs none of their content and imports no Keras."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from edgeattn.bundle import model_digest
from edgeattn.bundle.model_digest import digest
from edgeattn.errors import EdgeattnError, UnsafeModelError, UnsupportedModelError, UsageError
from edgeattn.inspection import file_kind
from edgeattn_converters.loading.architecture import read_architecture
from edgeattn_converters.loading.audit import ModelFile, audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.own_code.custom_objects import load_module
from edgeattn_converters.loading.safety import config_screening, size_limits
from edgeattn_converters.options import ModelSource

SPECIMENS = Path(__file__).parents[2] / "specimens"


def dense(name: str = "dense", **more: Any) -> dict[str, Any]:
    return {"class_name": "Dense", "config": {"name": name, "units": 3, **more}}


def sequential(*layers: Any) -> dict[str, Any]:
    shape = {"name": "x", "batch_shape": [None, 5], "dtype": "float32"}
    inputs = {"class_name": "InputLayer", "config": shape}
    return {"class_name": "Sequential", "config": {"name": "m", "layers": [inputs, *layers]}}


def write_h5(path: Path, config: Any = None, version: str | None = "3.15.1") -> Path:
    with h5py.File(path, "w") as file:
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
        if version:
            file.attrs["keras_version"] = version
            file.attrs["backend"] = "tensorflow"
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [b"dense"]
        layer = weights.create_group("dense")
        layer.attrs["weight_names"] = [b"dense/kernel", b"dense/bias"]
        layer["dense/kernel"] = np.arange(15, dtype="float32").reshape(5, 3)
        layer["dense/bias"] = np.ones(3, "float32")
    return path


def write_keras(path: Path, config: Any) -> Path:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["layers/dense/vars/0"] = np.ones((5, 3), "float32")
        file["layers/dense/vars/1"] = np.ones(3, "float32")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.11.3"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", buffer.getvalue())
    return path


def test_hdf5_is_recognized_by_its_content(tmp_path: Path) -> None:
    config = sequential(dense())
    path = write_h5(tmp_path / "named.keras", config)
    assert audit_file(path) == ModelFile(
        path=path,
        sha256=digest(path),
        size=path.stat().st_size,
        kind="keras-hdf5",
        keras_version="3.15.1",
        backend="tensorflow",
        config=config,
        trusted=False,
    )


def test_zip_is_recognized_by_its_content(tmp_path: Path) -> None:
    file = audit_file(write_keras(tmp_path / "named.h5", sequential(dense())))
    assert (file.kind, file.keras_version) == ("keras-zip", "3.11.3")


def test_other_kinds_are_recognized(tmp_path: Path) -> None:
    lite, onnx, bundle = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    lite.write_bytes(b"\x1c\0\0\0TFL3" + bytes(20))
    onnx.write_bytes(b"\x08\x0a\x12\x04test" + bytes(20))
    bundle.mkdir()
    (bundle / "manifest.json").write_text("{}")
    weights = write_h5(tmp_path / "d")
    kinds = [audit_file(path).kind for path in (lite, onnx, bundle, weights)]
    assert kinds == ["tflite", "onnx", "bundle", "weights-hdf5"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"dear diary", "is text"),
        (b"<html>not found</html>", "a web page"),
        (b'{"class_name": "Sequential"}', "an architecture without weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
        (bytes(range(256)), "a file of an unknown format"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "complete HDF5"),
        (b"PK\x03\x04" + bytes(100), "complete zip"),
    ],
)
def test_files_without_a_model(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    with pytest.raises(UnsupportedModelError, match=message) as error:
        audit_file(path)
    assert error.value.hint


# The first bytes that programs write: header length and header of safetensors, the first node of a
# graph, a description where ONNX has the producer, and so on.
_GRAPH = b"\n\x1f\n\x01x\x12\x0bPlaceholder*\r\n\x05dtype\x12\x04\n\x02type0\x01"
_CORE_ML = b"\x08\x04\x12\xd6\x02\n\x1a\n\x05image\x12\x11" + bytes(40)
_OF_JS = b'{"format": "layers-model", "modelTopology": {"model_config": {"class_name": "Model"}}}'


@pytest.mark.parametrize(
    ("name", "content", "message", "hint"),
    [
        ("m.safetensors", struct.pack("<Q", 60) + b'{"w":{"dtype":"F32"' + bytes(80),
         "a safetensors file, which contains weights only", "save the whole model"),
        ("m.npy", b"\x93NUMPY\x01\0v\0{'descr'" + bytes(80), "a NumPy array", "--samples"),
        ("frozen.pb", _GRAPH, "a graph of TensorFlow without", "tf.saved_model.save"),
        ("graph.pbtxt", b'node {\n  name: "x"\n}', "a graph of TensorFlow", "signatures="),
        ("model.ckpt", bytes(64), "a TensorFlow checkpoint", "load_weights('model.ckpt')"),
        ("model.ckpt-9.meta", b"\n\x05\x12\x01x" + bytes(20), "checkpoint", "('model.ckpt-9')"),
        ("keras_metadata.pb", b"\n\x05\x12\x01x" + bytes(20), "one file of a SavedModel", "folder"),
        ("m.mlmodel", _CORE_ML, "a Core ML model", ".keras or .h5 file"),
        ("unnamed", _CORE_ML, "a Core ML model", ".keras or .h5 file"),
        ("llm.gguf", b"GGUF\x03\0\0\0" + bytes(40), "a GGUF file", ".keras or .h5 file"),
        ("yolo.weights", bytes(40), "a weights file of Darknet", ".keras or .h5 file"),
        ("m.xml", b'<?xml version="1.0"?><net name="m"', "an OpenVINO model", "models of Keras"),
        ("model.json", _OF_JS, "a model of TensorFlow.js", "--output_format=keras"),
        ("m.json", b'{"class_name": "Sequential"}', "an architecture", "--architecture m.json"),
        ("m.yaml", b"backend: tensorflow\nclass_name: Model\n", "an architecture", "FILE.json"),
        ("model.h5.gz", b"\x1f\x8b\x08\0" + bytes(20), "a gzip archive", "Unpack it"),
        ("saved.tar", bytes(257) + b"ustar\0" + bytes(250), "a tar archive", "Unpack it"),
        ("train.py", b"import keras\nmodel = 1\n", "a program", "Run it"),
    ],
)  # fmt: skip
def test_files_of_other_formats_are_named(
    name: str, content: bytes, message: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsupportedModelError, match=message) as error:
        audit_file(tmp_path / name)
    assert hint in str(error.value.hint)


@pytest.mark.parametrize("content", [pickle.dumps([1], 4), pickle.dumps([1], 0), b"x\x9c\x03\0"])
@pytest.mark.parametrize("name", ["m.pkl", "m.joblib"])
def test_pickles_are_refused_by_name_too(name: str, content: bytes, tmp_path: Path) -> None:
    """The oldest pickles are text, and joblib compresses its own."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsafeModelError, match="a Python pickle") as error:
        audit_file(tmp_path / name)
    assert "in the program that wrote it" in str(error.value.hint)


@pytest.mark.parametrize(
    ("entries", "message", "hint"),
    [
        (["w.npy", "b.npy"], "contains 2 NumPy arrays, not a model", "--samples"),
        (
            ["m/saved_model.pb", "m/variables/variables.index"],
            "archive that contains a m",
            "Unpack",
        ),
        (["best.h5"], "that contains a model: best.h5", "Unpack"),
    ],
)
def test_archives_of_something_else_are_named(
    entries: list[str], message: str, hint: str, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for entry in entries:
            archive.writestr(entry, b"content")
    with pytest.raises(UnsupportedModelError, match=message) as error:
        audit_file(tmp_path / "m.zip")
    assert hint in str(error.value.hint)


@pytest.mark.parametrize(
    ("files", "message", "hint"),
    [
        (
            ["config.json", "metadata.json", "model.weights.h5"],
            "files of a .keras file",
            "zipfile -c",
        ),
        (["model.json", "group1-shard1of1.bin"], "a model of TensorFlow.js", "tensorflowjs_conv"),
        (["notes.txt"], "contains no model", "model.save"),
    ],
)
def test_folders_of_something_else_are_named(
    files: list[str], message: str, hint: str, tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"content")
    with pytest.raises(UnsupportedModelError, match=message) as error:
        audit_file(tmp_path)
    assert hint in str(error.value.hint)


def test_prefix_of_a_checkpoint_is_named(tmp_path: Path) -> None:
    """It is no file; ``save_weights`` and ``load_weights`` take it."""
    (tmp_path / "cp.ckpt.index").write_bytes(bytes(20))
    with pytest.raises(UnsupportedModelError, match="TensorFlow checkpoint") as error:
        audit_file(tmp_path / "cp.ckpt")
    assert "load_weights('cp.ckpt')" in str(error.value.hint)
    ModelSource(tmp_path / "cp.ckpt").check_files()
    assert file_kind(tmp_path / "cp.ckpt") == "keras"


@pytest.mark.parametrize("kind", ["TFLite", "ONNX"])
def test_converted_files_are_not_converted_again(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "converted"
    start = b"\x1c\0\0\0TFL3" if kind == "TFLite" else b"\x08\x0a\x12\x04test"
    path.write_bytes(start + bytes(20))
    with pytest.raises(UsageError, match=f"converted is an? {kind} model") as error:
        load_model(audit_file(path))
    assert f"edgeattn validate {path} --model KERAS_FILE" in str(error.value.hint)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        audit_file(tmp_path / "absent.h5")


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "/dev/full"])
def test_devices_and_pipes_are_refused_without_reading_them(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "pipe":
        os.mkfifo(path)
    with pytest.raises(UsageError, match="is not a regular file"):
        audit_file(path)


def test_folders_without_a_model_are_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(UnsupportedModelError, match="contains no model"):
        audit_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"The folder \. contains no model"):
        audit_file(Path())


def test_folders_of_too_many_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_digest, "MAX_FILES", 20)
    for number in range(30):
        (tmp_path / f"{number}").write_bytes(b"x")
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UnsafeModelError, match="too many files"):
        audit_file(tmp_path)


# Sizes


def compressed(path: Path, ratio: int, total: int) -> Path:
    """A weights file whose arrays take ``total`` bytes, about ``ratio`` times what they store."""
    noise = np.random.default_rng(1).bytes(2**20 // ratio)
    block = np.frombuffer(noise.ljust(2**20, b"\0"), np.uint8)
    with h5py.File(path, "w") as file:
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [b"a"]
        weights.create_dataset(
            "a/kernel", data=np.tile(block, total // 2**20), compression=9, chunks=(2**20,)
        )
    return path


@pytest.mark.parametrize(("ratio", "allowed"), [(10, True), (40, True), (60, False), (190, False)])
def test_compression_of_hdf5_arrays(ratio: int, allowed: bool, tmp_path: Path) -> None:
    path = compressed(tmp_path / "w.h5", ratio, 2**24)
    if allowed:
        assert audit_file(path).kind == "weights-hdf5"
        return
    with pytest.raises(UnsafeModelError, match="declares 16777216 bytes"):
        audit_file(path)
    assert audit_file(path, trust=digest(path)).trusted


def test_many_small_arrays_that_are_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size_limits, "SMALL_ARRAYS_BYTES", 2**22)
    path = write_h5(tmp_path / "m.h5", sequential(dense()))
    audit_file(path)
    with h5py.File(path, "a") as file:
        for number in range(30):
            file.create_dataset(f"unwritten/{number}", (2**18,), "f4")
    with pytest.raises(UnsafeModelError, match=r"bytes declare 314573[0-9]{2} bytes of arrays"):
        audit_file(path)


@pytest.mark.parametrize(("ratio", "allowed"), [(40, True), (60, False)])
def test_compression_of_archives(
    ratio: int, allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size_limits, "SMALL_ENTRY_BYTES", 2**20)
    path = write_keras(tmp_path / "m.keras", sequential(dense()))
    noise = np.random.default_rng(1).bytes(2**20 // ratio)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/a", noise.ljust(2**20, b"\0") * 2)
    if allowed:
        assert audit_file(path).kind == "keras-zip"
        return
    with pytest.raises(UnsafeModelError, match="'assets/a' unpacks from"):
        audit_file(path)


def test_compression_in_an_archive_and_in_its_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each ratio alone is allowed, their product is not."""
    monkeypatch.setattr(size_limits, "SMALL_ARRAYS_BYTES", 2**22)
    weights = compressed(tmp_path / "w.h5", 40, 2**24).read_bytes()
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps(sequential(dense())))
        archive.writestr("model.weights.h5", weights)
    assert path.stat().st_size < len(weights) / 4
    with pytest.raises(UnsafeModelError, match="bytes declare 16777216 bytes of arrays"):
        audit_file(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_keras_does_not_use(compression: int, tmp_path: Path) -> None:
    path = write_keras(tmp_path / "m.keras", sequential(dense()))
    with zipfile.ZipFile(path, "a", compression) as archive:
        archive.writestr("assets/a", b"x")
    with pytest.raises(UnsafeModelError, match="compression that Keras does not use"):
        audit_file(path)


@pytest.mark.parametrize("name", ["a.json", "a.py"])
def test_sources_that_are_too_large(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(size_limits.MAX_SOURCE_BYTES + 1)
    is_json = name.endswith(".json")
    read = read_architecture if is_json else partial(load_module, option="--architecture")
    with pytest.raises(UsageError, match=f"--architecture: {name} has 33,554,433 bytes"):
        read(path)


def test_truncated_file(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "m.h5", sequential(dense()))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UnsupportedModelError, match="cut short"):
        audit_file(path)


@pytest.mark.parametrize("member", ["config.json", "metadata.json", "model.weights.h5"])
def test_damaged_compression(member: str, tmp_path: Path) -> None:
    """A byte of a compressed member is changed. Found by the fuzzer."""
    stored, path = write_keras(tmp_path / "stored.keras", sequential(dense())), tmp_path / "m.keras"
    with (
        zipfile.ZipFile(stored) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in source.namelist():
            archive.writestr(name, source.read(name))
        start = archive.getinfo(member).header_offset + 30 + len(member)
    data = bytearray(path.read_bytes())
    data[start] ^= 6  # the type of the first block
    path.write_bytes(data)
    with pytest.raises((UnsupportedModelError, UnsafeModelError)):
        audit_file(path)


def test_hdf5_file_without_a_model(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["measurements"] = np.zeros(3)
    with pytest.raises(UnsupportedModelError, match="measurements"):
        audit_file(path)


def write_keras_0(path: Path, groups: dict[str, int]) -> Path:
    """Write numbers of arrays as ``save_weights`` of Keras 0.3.3 does in keras/models.py."""
    with h5py.File(path, "w") as file:
        if "graph" not in groups:
            file.attrs["nb_layers"] = len(groups)
        for name, count in groups.items():
            group = file.create_group(name)
            group.attrs["nb_params"] = count
            for index in range(count):
                group[f"param_{index}"] = np.ones((3, 1), "float32")
    return path


@pytest.mark.parametrize(
    ("groups", "step"),
    [
        # Keras 1.2.2 loads files with nb_layers: engine/topology.py, "Legacy format".
        ({"layer_0": 2, "layer_1": 0}, "model.load_weights('w.h5')"),
        ({"graph": 4}, "layer.set_weights([...])"),
    ],
)
def test_weights_of_keras_0_are_named(groups: dict[str, int], step: str, tmp_path: Path) -> None:
    """Keras before 1.0 has no ``model.save``, so the whole model cannot be saved with it."""
    path = write_keras_0(tmp_path / "w.h5", groups)
    with pytest.raises(UnsupportedModelError, match="contains weights of Keras 0") as error:
        audit_file(path)
    assert error.value.hint is not None
    assert step in error.value.hint
    assert error.value.hint.startswith("In Keras 1.2, build the model")


def test_groups_named_as_in_keras_0_without_their_attributes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["layer_0/values"] = np.zeros(3)
    with pytest.raises(UnsupportedModelError, match="not a Keras model: it contains layer_0"):
        audit_file(tmp_path / "data.h5")


def test_architecture_without_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(sequential(dense()))
    with pytest.raises(UnsupportedModelError, match="no weights for 2 of 2 variables"):
        load_model(audit_file(path))


def test_trust_applies_to_one_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_h5(tmp_path / "m.h5", sequential(dense()))
    monkeypatch.setattr(size_limits, "MAX_DECLARED_BYTES", 10)
    with pytest.raises(UnsafeModelError, match=f"--trust {digest(path)}"):
        audit_file(path)
    assert audit_file(path, trust=digest(path)).trusted
    with pytest.raises(UnsafeModelError, match="not the trusted file"):
        audit_file(path, trust="0" * 64)


def test_digest_is_the_sha256_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(tmp_path / "f") == expected


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"class_name": "TFSMLayer", "config": {"filepath": "x"}}, "graph from another folder"),
        ({"class_name": "TorchModuleWrapper", "config": {"module": {}}}, "unpickles"),
        ({"class_name": "JaxLayer", "config": {"call_fn": "f"}}, "Python function"),
        ({"module": "os", "class_name": "Popen", "config": {}}, "import os.Popen"),
        (
            {"module": "keras.src.utils.file_utils", "class_name": "get_file", "config": {}},
            "import",
        ),
        ({"module": "keras.utils", "class_name": "function", "config": "get_file"}, "would call"),
        ({"module": "numpy", "class_name": "function", "config": "load"}, "would call numpy.load"),
        ({"class_name": "StringLookup", "config": {"vocabulary": "words.txt"}}, "points at a file"),
        ({"class_name": "Thing", "config": {"weights": "../../secret"}}, "points at a file"),
        ({"class_name": "Thing", "config": {"x": "https://example.invalid/"}}, "an address"),
        ({"class_name": "TFOpLambda", "config": {"function": "io.read_file"}}, "io.read_file"),
        ({"class_name": "TFOpLambda", "config": {"function": "py_function"}}, "py_function"),
        (
            {"class_name": "TensorFlowOpLayer", "config": {"node_def": {"op": "WriteFile"}}},
            "raw TensorFlow operation",
        ),
        (dense(units=1 << 40), "units=1099511627776"),
    ],
)
@pytest.mark.parametrize("write", [write_h5, write_keras])
def test_unsafe_config_is_refused(
    layer: dict[str, Any], message: str, write: Any, tmp_path: Path
) -> None:
    layer["config"] = (
        {"name": "culprit", **layer["config"]}
        if isinstance(layer["config"], dict)
        else layer["config"]
    )
    path = write(tmp_path / "m", sequential(dense(), layer))
    with pytest.raises(UnsafeModelError, match="Refused at") as error:
        audit_file(path)
    assert message in error.value.message
    assert error.value.hint
    if isinstance(layer["config"], dict) and "units" not in layer["config"]:
        assert "'culprit'" in error.value.message


def test_unusual_but_harmless_config_is_accepted(tmp_path: Path) -> None:
    """Slashes in names, paths as words of a vocabulary, unknown losses and metrics."""
    vocabulary = ["", "[UNK]", "/etc/passwd", "https://example.invalid"]
    layers = [
        dense("block/1"),
        {"class_name": "StringLookup", "config": {"name": "s", "vocabulary": vocabulary}},
        {"class_name": "Mine", "module": "my_project.layers", "config": {"name": "own"}},
    ]
    config = {
        **sequential(*layers),
        "compile_config": {
            "loss": {"module": "builtins", "class_name": "function", "config": "my_loss"},
            "optimizer": {"module": "keras.optimizers", "class_name": "Adam", "config": {}},
        },
    }
    assert audit_file(write_keras(tmp_path / "m.keras", config)).config == config


def test_audit_imports_no_framework(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "m.h5", sequential(dense()))
    code = (
        "import sys, pathlib; from edgeattn_converters.loading.audit import audit_file; "
        f"audit_file(pathlib.Path({str(path)!r})); "
        "print([m for m in ('keras', 'tensorflow', 'tf_keras', 'torch') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_deeply_nested_config_is_refused() -> None:
    deep: dict[str, Any] = {"class_name": "Dense", "config": {}}
    for _ in range(size_limits.MAX_CONFIG_DEPTH):
        deep = {"config": deep}
    with pytest.raises(UnsafeModelError, match="nested too deeply"):
        config_screening.screen(deep, hint="", trusted=False)


def hostile_cases() -> list[Any]:
    """Return the cases of make_hostile.py, which writes the files at test time."""
    script = SPECIMENS / "make_hostile.py"
    if not script.exists():
        return []
    spec = importlib.util.spec_from_file_location("make_hostile", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = [name for name in module.CASES if not name.endswith((".onnx", ".tflite", ".npz"))]
    return [pytest.param(module, name, id=name) for name in names]


@pytest.mark.parametrize(("module", "name"), hostile_cases())
def test_hostile_files(
    module: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is accepted or refused as expected, and none of its code runs."""
    from edgeattn_converters.loading.load import load_model

    canary = tmp_path / "ran"
    monkeypatch.setenv(module.CANARY, str(canary))
    case = module.make(name, tmp_path)
    if case["expect"] == "accept":
        assert load_model(audit_file(case["path"])).model.count_params() > 0
    else:
        kind = UnsafeModelError if case["expect"] == "refuse" else EdgeattnError
        with pytest.raises(kind) as error:
            load_model(audit_file(case["path"]))
        assert error.value.exit_code in ((4,) if case["expect"] == "refuse" else (2, 3))
        assert error.value.hint
    assert not canary.exists()


def test_kinds_are_documented() -> None:
    documented = ModelFile.__doc__ or ""
    for kind in ("keras-hdf5", "keras-zip", "weights-hdf5", "saved-model", "tflite", "onnx"):
        assert kind in documented


def test_files_of_pytorch_are_named(tmp_path: Path) -> None:
    new, old = tmp_path / "new.pt", tmp_path / "old.pth"
    with zipfile.ZipFile(new, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("model/data/0", bytes(8))
    scripted, weights = tmp_path / "scripted.pt", tmp_path / "pytorch_model.bin"
    for path, entries in (
        (scripted, ("net/code/__torch__.py", "net/constants.pkl", "net/data.pkl", "net/version")),
        (weights, ("archive/data.pkl", "archive/byteorder", "archive/data/0")),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for entry in entries:
                archive.writestr(entry, b"\x80\x02}q\x00.")
    # torch.save began files with this number before version 1.6.
    old.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + bytes(64))
    for path in (new, scripted, weights, old):
        with pytest.raises(UnsupportedModelError, match="is a PyTorch file") as error:
            audit_file(path)
        assert "torch.onnx.export" in str(error.value.hint)


def test_graph_file_of_a_saved_model_is_named(tmp_path: Path) -> None:
    """Its first bytes are those of an ONNX file."""
    path = tmp_path / "saved_model.pb"
    path.write_bytes(b"\x08\x01\x12\x40" + bytes(64))
    with pytest.raises(UnsupportedModelError, match="one file of a SavedModel") as error:
        audit_file(path)
    assert str(tmp_path) in str(error.value.hint)


def test_worker_imports_keras_after_the_audit() -> None:
    """The audit has a time limit, which importing TensorFlow would use up."""
    code = (
        "import sys, edgeattn_converters.worker.tasks; "
        "print([name for name in ('keras', 'tensorflow', 'tf_keras') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
def test_pointers_in_folders_are_named(name: str, tmp_path: Path) -> None:
    """Git LFS may have replaced the large files of a folder only."""
    (tmp_path / "m" / "variables").mkdir(parents=True)
    (tmp_path / "m" / "saved_model.pb").write_bytes(b"")
    (tmp_path / "m" / name).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 154403962\n"
    )
    with pytest.raises(UnsupportedModelError, match=f"{name} in .* is a Git LFS pointer") as error:
        audit_file(tmp_path / "m")
    assert "git lfs pull" in error.value.hint
