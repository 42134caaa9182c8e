"""Does telling the maps change the answer? A file with its maps against the same without.

A map that leaves a graph keeps the operators before it from being fused, by the converter and by
the runtime: the numbers behind it may become others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import ConversionError
from edgeattn.metrics import pairwise as metrics
from edgeattn.metrics.limits import LIMITS
from edgeattn.tensors import Tensors, TensorSpec
from edgeattn_converters.quantization.selection import ModelIO

# Samples that both files are run on.
COMPARED = 16

Specs = tuple[TensorSpec, ...]


def compare(
    path: Path,
    format: str,
    scheme: str,
    ends: ModelIO,
    samples: Tensors,
    convert_without: Callable[[Path], Any] | None,
) -> float:
    """The largest difference of a main output of the file at ``path``, with its maps and without.

    ``convert_without`` writes the file that the converter makes where no maps are asked for;
    without it, the maps are taken off the outputs of the file itself. Raises
    :class:`ConversionError` where the two are not the same within the scheme's limits.
    """
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / f"without.{format}"
        if convert_without is None:
            other.write_bytes(_CUT[format](path.read_bytes(), ends))
        else:
            convert_without(other)
        rows = {name: array[:COMPARED] for name, array in samples.items()}
        told = _run(path, format, ends.inputs, ends.outputs, rows)
        plain = _run(other, format, ends.inputs, ends.main, rows)
    return max(_difference(spec.name, scheme, told, plain) for spec in ends.main)


def _difference(name: str, scheme: str, told: Tensors, plain: Tensors) -> float:
    limits = LIMITS[scheme]
    one, other = np.nan_to_num(plain[name]), np.nan_to_num(told[name])
    if one.shape != other.shape:
        raise ConversionError(f"With its maps the file's output {name!r} has another shape.")
    ratio = metrics.tolerance_ratio(one, other, atol=limits.atol, rtol=limits.rtol)
    difference = metrics.max_abs_error(one, other)
    if ratio > 1 and metrics.snr_db(one, other) < limits.snr_db:
        raise ConversionError(
            f"Output {name!r} differs by {difference:.2g} with the attention maps told and "
            "without: one of the two is wrong.",
            hint="Convert without them: --no-attention. And please report this model.",
        )
    return difference


def _run(path: Path, format: str, inputs: Specs, outputs: Specs, data: Tensors) -> Tensors:
    from edgeattn.runners import open_runner

    runner = open_runner(path, format, inputs, outputs)
    try:
        return runner.run(data)
    finally:
        runner.close()


def _tflite_without(content: bytes, ends: ModelIO) -> bytes:
    from edgeattn_converters.graphs.tflite_file import TFLiteFile

    file = TFLiteFile(content)
    kept = [
        int(index)
        for index, spec in zip(file.main.outputs, ends.outputs, strict=True)
        if spec.name not in ends.maps
    ]
    file.main.outputs = kept
    for signature in file.model.signatureDefs or []:
        signature.outputs = [item for item in signature.outputs if int(item.tensorIndex) in kept]
    return file.pack()


def _onnx_without(content: bytes, ends: ModelIO) -> bytes:
    import onnx

    proto = onnx.load_from_string(content)
    kept = [value for value in proto.graph.output if value.name not in ends.maps]
    del proto.graph.output[:]
    proto.graph.output.extend(kept)
    made: bytes = proto.SerializeToString()
    return made


_CUT: dict[str, Callable[[bytes, ModelIO], bytes]] = {
    "tflite": _tflite_without,
    "onnx": _onnx_without,
}
