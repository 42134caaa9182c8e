"""TFLite files with weights in other files are refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import artifacts
import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from artifacts import X, Y, dense, samples

from edgeattn.diagnosis.tflite import InstrumentedTFLite
from edgeattn.errors import ArtifactError, UnsafeModelError
from edgeattn.inspection import read_tflite
from edgeattn.runners.tflite import TFLiteRunner

ONE_X, ONE_Y = (replace(spec, shape=(1, *spec.shape[1:])) for spec in (X, Y))
KERNEL = 1  # the index of the tensor


def rewritten(path: Path, change: Callable[[Any], None], appended: bytes = b"") -> Path:
    """The dense model with ``change`` applied to its tables."""
    artifacts.write_dense_tflite(path)
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()) + appended)
    return path


def add_group(model: Any) -> None:
    group = schema.ExternalBufferGroupT()
    group.name = "weights.bin"
    model.externalBufferGroups = [group]


def add_buffer(model: Any) -> None:
    buffer = schema.ExternalBufferT()
    buffer.id, buffer.group, buffer.offset, buffer.length = 1, 0, 0, 24
    model.externalBuffers = [buffer]


def refer(model: Any) -> None:
    tensor = model.subgraphs[0].tensors[KERNEL]
    tensor.buffer, tensor.externalBuffer = 0, 1


def store_outside(model: Any) -> None:
    add_group(model)
    add_buffer(model)
    refer(model)


OPENERS = {
    "run": lambda path: TFLiteRunner(path, (ONE_X,), (ONE_Y,)),
    "inspect": lambda path: read_tflite(str(path)),
    "diagnose": lambda path: InstrumentedTFLite(path, (ONE_X,), (ONE_Y,)),
}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("change", [add_group, add_buffer, refer, store_outside])
def test_weights_in_other_files_are_refused(
    change: Callable[[Any], None], opener: str, tmp_path: Path
) -> None:
    path = rewritten(tmp_path / "m.tflite", change)
    (tmp_path / "weights.bin").write_bytes(bytes(24))
    with pytest.raises(UnsafeModelError, match=r"m\.tflite was refused: .* in another file"):
        OPENERS[opener](path)


def moved_to(offset: int, size: int) -> Callable[[Any], None]:
    """Stores the kernel at an offset of the file, after the tables."""

    def change(model: Any) -> None:
        buffer = model.buffers[model.subgraphs[0].tensors[KERNEL].buffer]
        buffer.data, buffer.offset, buffer.size = None, offset, size

    return change


@pytest.mark.parametrize("offset", [10**5, 2**40, 2**64 - 30])
@pytest.mark.parametrize("opener", OPENERS)
def test_buffers_outside_the_file_are_malformed(opener: str, offset: int, tmp_path: Path) -> None:
    path = rewritten(tmp_path / "m.tflite", moved_to(offset, 24))
    with pytest.raises(ArtifactError, match="a buffer leads outside the file"):
        OPENERS[opener](path)


def test_buffers_after_the_tables_are_read(tmp_path: Path) -> None:
    kernel = np.ascontiguousarray(artifacts.KERNEL.T).tobytes()
    # Offsets have a fixed size, so the tables are as long with another one.
    size = rewritten(tmp_path / "m.tflite", moved_to(10**5, len(kernel))).stat().st_size
    path = rewritten(tmp_path / "m.tflite", moved_to(size, len(kernel)), kernel)
    got = TFLiteRunner(path, (ONE_X,), (ONE_Y,)).run({"x": samples(7)})["score"]
    np.testing.assert_array_equal(got, dense(samples(7)))
