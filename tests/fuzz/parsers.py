"""Every parser of foreign bytes that edgeattn has, as a function that a fuzzer can call.

A function of :data:`PARSERS` takes the bytes of an input and returns ``True`` if they were read and
``False`` if they were refused with the error that the parser documents. Any other exception, and
any :class:`AssertionError` about what was read, is a finding.
"""

from __future__ import annotations

import contextlib
import io
import json
import marshal
import os
import random
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.bundle import cache
from edgeattn.bundle.bundle import Bundle, parse_manifest
from edgeattn.bundle.manifest import MANIFEST, REFERENCE, SIGNATURE, Artifact, Manifest
from edgeattn.deployment import replies
from edgeattn.device.advice import advise
from edgeattn.errors import (
    ArtifactError,
    BundleError,
    DeviceError,
    SampleError,
    UnsafeModelError,
    UnsupportedModelError,
    UsageError,
)
from edgeattn.evaluation.checkpoint import Checkpoint, Stored
from edgeattn.evaluation.shards import Shard
from edgeattn.file_structure.contents import FileContents
from edgeattn.file_structure.read import read_contents
from edgeattn.inference.stream import read_stream
from edgeattn.process.protocol import error_from_json, read_message, write_message
from edgeattn.runners.external_data import refuse_external_data
from edgeattn.samples.files import read_samples
from edgeattn.samples.npz import read_npz, write_npz
from edgeattn.targets.replies import parse_checks, parse_device, parse_identity, parse_processors
from edgeattn.tensors import TensorSpec
from edgeattn.version import __version__
from edgeattn_converters.loading.audit import as_damaged
from edgeattn_converters.loading.formats import json_config, keras_archive, saved_model
from edgeattn_converters.loading.lambdas import bytecode, recognition
from edgeattn_converters.loading.lambdas.expressions import NotRecognizedError
from edgeattn_converters.loading.safety import config_screening
from edgeattn_converters.loading.safety.size_limits import FileLimits
from mutations import mutate_bytes, mutate_json, mutate_members

SPECIMENS = Path(__file__).parents[1] / "specimens"
BUNDLE = SPECIMENS / "bundle-0.1.0.dev0"
X = TensorSpec("x", (None, 2, 3), "float32")
KEY = "key"
# In memory where the system has such a file system: every input of some parsers is a file.
MEMORY = Path("/dev/shm")
_folder = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)


@dataclass(frozen=True)
class Parser:
    """A parser, the inputs that the fuzzer starts from, and a change that keeps their form."""

    parse: Callable[[bytes], bool]
    seeds: Callable[[], Iterable[bytes]]
    mutate: Callable[[bytes, random.Random], bytes] = mutate_bytes


def _file(name: str, data: bytes) -> Path:
    path = Path(_folder.name) / name
    path.write_bytes(data)
    return path


@contextlib.contextmanager
def _refused_by(*errors: type[Exception]) -> Iterator[list[bool]]:
    """Yields a list that is empty in the end if the block raised one of ``errors``."""
    read: list[bool] = []
    with contextlib.suppress(*errors):
        yield read
        read.append(True)


def read_tflite(data: bytes) -> bool:
    with _refused_by(ArtifactError) as read:
        _check_contents(read_contents(Path("m.tflite"), "tflite", data))
    return bool(read)


def read_onnx(data: bytes) -> bool:
    """What the parser of the runtimes finds in a file that was not refused is what was read."""
    with _refused_by(ArtifactError, UnsafeModelError) as read:
        refuse_external_data(Path("m.onnx"), data)
        model = _protobuf(data)
        assert model is None or not any(map(_is_external, _tensors(model)))
        contents = read_contents(Path("m.onnx"), "onnx", data)
        _check_contents(contents)
        if model is not None:
            operators = _operators(model)
            assert operators is None or operators == contents.operators
    return bool(read)


def _check_contents(contents: FileContents) -> None:
    json.dumps(contents.to_json())
    assert 0 <= contents.share_of("float32") <= 1
    assert all(count >= 0 for count in contents.weights.values())


def _protobuf(data: bytes) -> Any:
    """The model as Google's parser reads it; None if it refuses the bytes."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.ModelProto.FromString(data)
    except DecodeError:
        return None


def _tensors(message: Any) -> Iterator[Any]:
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(item)


def _is_external(tensor: Any) -> bool:
    return bool(tensor.data_location == 1 or tensor.external_data)


def _operators(model: Any) -> Counter[str] | None:
    """The number of nodes by type; None if a type is no text."""
    counts: Counter[str] = Counter()
    pending = [*model.graph.node, *(node for item in model.functions for node in item.node)]
    try:
        while pending:
            node = pending.pop()
            counts[node.op_type] += 1
            for attribute in node.attribute:
                graphs = [attribute.g] if attribute.HasField("g") else []
                pending += [inner for graph in [*graphs, *attribute.graphs] for inner in graph.node]
    except UnicodeDecodeError:
        return None
    is_text = all(isinstance(name, str) and "\ufffd" not in name for name in counts)
    return counts if is_text else None


def read_manifest(data: bytes) -> bool:
    with _refused_by(BundleError) as read:
        manifest = parse_manifest(Path("m.edge"), data)
        text = json.dumps(manifest.to_json())
        assert json.dumps(Manifest.from_json(json.loads(text)).to_json()) == text
        assert all(
            not Path(name).is_absolute() and ".." not in Path(name).parts
            for name in manifest.hashes
        )
        assert all((manifest.reference_kind, manifest.reference_samples))
    return bool(read)


def read_packed_bundle(data: bytes) -> bool:
    """What is unpacked is listed in the manifest, and nothing is written outside the cache."""
    path = _file("m.zip", data)
    root = path.parent / "cache"
    os.environ["XDG_CACHE_HOME"] = str(root)
    before = sorted(path.parent.iterdir())
    try:
        with _refused_by(BundleError, UnsafeModelError) as read:
            bundle = Bundle.open(path)
            bundle.reference()
            files = {p.relative_to(bundle.path).as_posix() for p in _files(bundle.path)}
            assert files <= {*bundle.manifest.hashes, MANIFEST, SIGNATURE}
        assert {*path.parent.iterdir()} <= {*before, root}
        return bool(read)
    finally:
        for lock in cache._held.values():
            os.close(lock)
        cache._held.clear()
        shutil.rmtree(root, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


def read_arrays(data: bytes) -> bool:
    with _refused_by(SampleError) as read:
        arrays = read_npz(Path("m.npz"), data)
        assert not any(array.dtype.hasobject for array in arrays.values())
    return bool(read)


def _samples_reader(name: str) -> Callable[[bytes], bool]:
    def read_file(data: bytes) -> bool:
        with _refused_by(SampleError) as read:
            x = read_samples(_file(name, data), [X]).inputs["x"]
            assert x.shape[1:] == X.shape[1:]
            assert x.dtype == X.dtype
            assert np.isfinite(x).all()
        return bool(read)

    return read_file


def read_sample_stream(data: bytes) -> bool:
    """Every sample has the shape and dtype of the inputs; the others are errors."""
    count = 0
    for inputs in ((X,), (X, TensorSpec("n", (None, 2), "int32"))):
        with contextlib.suppress(SampleError):  # arrays for a model of several inputs
            for sample in read_stream(io.BufferedReader(io.BytesIO(data)), inputs):  # type: ignore[arg-type]
                if isinstance(sample, SampleError):
                    continue
                count += 1
                for spec in inputs:
                    array = sample[spec.name]
                    assert array.shape == (1, *spec.shape[1:])
                    assert array.dtype == spec.dtype
                    assert np.isfinite(array).all()
    return count > 0


def read_worker_message(data: bytes) -> bool:
    """The documented errors, which the caller reports as a malformed reply."""
    with _refused_by(ValueError, EOFError) as read:
        header, arrays = read_message(io.BytesIO(data), 2**20)
        assert sum(array.nbytes for array in arrays.values()) <= 2**20
        if "error" in header:
            with contextlib.suppress(TypeError, KeyError, AttributeError):
                error_from_json(header["error"])
    return bool(read)


ARTIFACT = Artifact("onnx", "float32", "m.onnx", "0" * 64, 1, (X,), (X,))
REPLIES: tuple[tuple[Callable[[Any], Any], Any], ...] = (
    (
        lambda reply: replies.OpenedFolder.parse(reply, "pi@board"),
        {
            "edgeattn": __version__,
            "folder": "/x",
            "current": "0001-0123456789ab",
            "created": 1,
        },
    ),
    (replies.FormatCheck.parse_all, [{"format": "onnx", "state": "pass", "reason": None}]),
    (replies.parse_runtime, "onnxruntime 1.32.0"),
    (lambda reply: replies.parse_version(reply, "0123456789ab"), "0001-0123456789ab"),
    (replies.parse_versions, ["0001-0123456789ab"]),
    (replies.parse_rollback, {"from": "0002-0123456789ab", "to": "0001-0123456789ab"}),
    (
        lambda reply: replies.parse_measurement(reply, [ARTIFACT]),
        {"artifacts": [{"format": "onnx", "scheme": "float32", "p50_ms": 1.5}]},
    ),
    (
        lambda reply: advise(parse_device(reply), ()),
        {
            "files": {
                "proc/cpuinfo": "processor : 0\nFeatures : fp asimd\nCPU part : 0xd08\n",
                "proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 10 kB\n",
                "etc/os-release": 'PRETTY_NAME="Debian"\n',
                "sys/class/thermal/thermal_zone0/temp": "51000",
            },
            "firmware": "throttled=0x50005",
            "machine": "aarch64",
            "bits": 64,
            "python": "3.11.2",
            "libc": "glibc 2.36",
            "cores": 4,
        },
    ),
    (
        parse_checks,
        [{"format": "tflite", "state": "pass", "runtime": "x", "xnnpack": True, "reason": None}],
    ),
    (
        parse_identity,
        {"manifest": "0" * 64, "edgeattn": "1.0", "python": "3.11.2", "machine": "aarch64"},
    ),
    (parse_processors, 4),
)


def read_replies(data: bytes) -> bool:
    """Replies of a device, which are JSON documents, read by each of the parsers."""
    try:
        reply = json.loads(data)
    except (ValueError, RecursionError):
        return False
    accepted = []
    for parse, _ in REPLIES:
        with _refused_by(DeviceError) as read:
            parse(reply)
        accepted += read
    return bool(accepted)


def read_keras_config(data: bytes) -> bool:
    """The configuration of a model, up to the decision whether it may be loaded."""
    with _refused_by(UnsupportedModelError, UnsafeModelError) as read, as_damaged(Path("m.h5")):
        config = json_config.parse_config(data.decode("utf-8", "replace"), FileLimits("m.h5"))
        config_screening.screen(config, hint="", trusted=False)
    return bool(read)


def read_keras_archive(data: bytes) -> bool:
    """A ``.keras`` file without weights, whose HDF5 file is not read here."""
    with _refused_by(UnsupportedModelError, UnsafeModelError) as read:
        keras_archive.inspect(_file("m.keras", data), FileLimits("m.keras"))
    return bool(read)


def read_saved_model(data: bytes) -> bool:
    folder = Path(_folder.name) / "saved"
    (folder / "variables").mkdir(parents=True, exist_ok=True)
    (folder / "variables/variables.index").touch()
    (folder / "keras_metadata.pb").write_bytes(data)
    with _refused_by(UnsupportedModelError, UnsafeModelError) as read:
        saved_model.inspect(folder)
    return bool(read)


def read_bytecode(data: bytes) -> bool:
    """Code of a Lambda layer. A function that is recognized only computes on tensors."""
    with _refused_by(NotRecognizedError) as read:
        bytecode.recognize(data, arguments={})
    recognition.seems_harmless(data.decode("latin-1"))
    return bool(read)


def read_checkpoint(data: bytes) -> bool:
    with _refused_by(UsageError) as read:
        loaded = Checkpoint(_file("m.checkpoint", data), KEY).load()
        assert loaded is not None
        assert all(0 <= shard.first < shard.stop for shard in loaded.shards)
        assert set(loaded.stopped) <= set(loaded.shards)
        for errors in loaded.stopped.values():
            assert all(isinstance(text, str) for text in errors.values())
    return bool(read)


def _models(suffix: str) -> Iterable[bytes]:
    return [path.read_bytes() for path in sorted(BUNDLE.glob(f"*{suffix}"))]


def _packed() -> Iterable[bytes]:
    buffer = io.BytesIO()
    kept = ("model.int8.onnx", REFERENCE)
    data = json.loads((BUNDLE / MANIFEST).read_text("utf-8"))
    data["artifacts"] = [item for item in data["artifacts"] if item["path"] in kept]
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(MANIFEST, json.dumps(data))
        for name in kept:
            archive.writestr(name, (BUNDLE / name).read_bytes())
    return [buffer.getvalue()]


def _arrays(*names: str) -> bytes:
    buffer = io.BytesIO()
    arrays = {name: np.arange(12, dtype="f4").reshape(2, 2, 3) for name in names}
    write_npz(buffer, arrays, compress=len(names) > 1)
    return buffer.getvalue()


def _npy(dtype: str, order: Any = "C") -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(12).reshape(2, 2, 3).astype(dtype, order=order))
    return buffer.getvalue()


def _message(header: Any, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    write_message(buffer, header, arrays)
    return buffer.getvalue()


def _checkpoint() -> bytes:
    path = Path(_folder.name) / "seed.checkpoint"
    shards = (Shard(0, 3), Shard(5, 6))
    errors = {shards[1]: {"onnx float32": "crashed"}}
    Checkpoint(path, KEY).save(Stored(shards, errors, {"a/b": np.arange(3.0)}))
    return path.read_bytes()


def _configs() -> Iterable[bytes]:
    from edgeattn_converters.loading.safety import allowed_classes

    layers = [
        {"class_name": "InputLayer", "config": {"name": "x", "batch_input_shape": [None, 5]}},
        {"class_name": "Dense", "config": {"name": "dense", "units": 3, "activation": "relu"}},
        {
            "class_name": "Lambda",
            "config": {"name": "mean", "function": list(_lambda_config()), "arguments": {}},
        },
    ]
    classes = sorted(allowed_classes.LAYERS)[::40]
    layers += [{"class_name": name, "config": {"name": name}} for name in classes]
    config = {"class_name": "Sequential", "config": {"name": "model", "layers": layers}}
    return [json.dumps(config).encode()]


def _lambda_config() -> Iterator[Any]:
    import base64

    yield base64.b64encode(marshal.dumps((lambda x: x * 2.0 + 1.0).__code__)).decode("ascii")
    yield from (None, None)


def _keras_archives() -> Iterable[bytes]:
    for config in _configs():
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("metadata.json", '{"keras_version": "3.10.0"}')
            archive.writestr("config.json", config)
        yield buffer.getvalue()


def _saved_models() -> Iterable[bytes]:
    for config in _configs():
        node = b"\x2a" + _varint(len(config)) + config  # field 5 of a node
        yield b"\x0a" + _varint(len(node)) + node


def _varint(value: int) -> bytes:
    result = b""
    while value > 0x7F:
        result, value = result + bytes([value & 0x7F | 0x80]), value >> 7
    return result + bytes([value])


def _mutate_text(data: bytes, generator: random.Random) -> bytes:
    """Change a JSON document as one, or its bytes."""
    if generator.random() < 0.7:
        with contextlib.suppress(Exception):  # the input is no document any more
            return json.dumps(mutate_json(json.loads(data), generator)).encode()
    return mutate_bytes(data, generator)


def _mutate_archive(data: bytes, generator: random.Random) -> bytes:
    """Change the members of a zip archive, so that their checksums are right, or its bytes."""
    if generator.random() < 0.6:
        with contextlib.suppress(Exception):  # the input is no archive any more
            return mutate_members(data, generator)
    return mutate_bytes(data, generator)


PARSERS: dict[str, Parser] = {
    "tflite": Parser(read_tflite, lambda: _models(".tflite")),
    "onnx": Parser(read_onnx, lambda: _models(".onnx")),
    "manifest": Parser(read_manifest, lambda: [(BUNDLE / MANIFEST).read_bytes()], _mutate_text),
    "packed bundle": Parser(read_packed_bundle, _packed, _mutate_archive),
    "reference": Parser(
        read_arrays, lambda: [_arrays("x"), (BUNDLE / REFERENCE).read_bytes()], _mutate_archive
    ),
    "npz samples": Parser(
        _samples_reader("m.npz"), lambda: [_arrays("x"), _arrays("x", "y")], _mutate_archive
    ),
    "npy samples": Parser(
        _samples_reader("m.npy"), lambda: [_npy("f4"), _npy("i8"), _npy("f8", "F")]
    ),
    "csv samples": Parser(
        _samples_reader("m.csv"), lambda: [b"a,b,c,d,e,f\n1,2,3,4,5,6\n-1,.5,1e3,0,0,0\n"]
    ),
    "stream": Parser(
        read_sample_stream,
        lambda: [
            b"1 2 3 4 5 6\n[[1, 2, 3], [4, 5, 6]]\n",
            b'{"x": [1, 2, 3, 4, 5, 6], "n": [7, 8]}\n',
            _npy("f4") * 2,
        ],
    ),
    "worker message": Parser(
        read_worker_message,
        lambda: [
            _message({"result": 1}, a=np.arange(3.0), b=np.zeros((2, 1), "i1")),
            _message({"error": {"type": "SampleError", "message": "no", "hint": None}}),
        ],
    ),
    "device reply": Parser(
        read_replies, lambda: [json.dumps(reply).encode() for _, reply in REPLIES], _mutate_text
    ),
    "keras config": Parser(read_keras_config, _configs, _mutate_text),
    "keras archive": Parser(read_keras_archive, _keras_archives, _mutate_archive),
    "saved model": Parser(read_saved_model, _saved_models),
    "bytecode": Parser(
        read_bytecode,
        lambda: [
            marshal.dumps(function.__code__)
            for function in (
                lambda x: x * 2.0 + 1.0,
                lambda x: x[:, -1, None],
                lambda x: x / 2.0 - x[:, 0:1],
            )
        ],
    ),
    "checkpoint": Parser(read_checkpoint, lambda: [_checkpoint()], _mutate_archive),
}
