"""Checks that exporting attention maps does not change a file's other outputs.

A map that is an output keeps the converter and the runtime from fusing the operators before it, so
the results of the operators behind it may differ.
"""

import contextlib
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import ConversionError
from edgeattn.metrics import pairwise as metrics
from edgeattn.metrics.limits import LIMITS
from edgeattn.runners import Runner, open_runner
from edgeattn.tensors import Tensors
from edgeattn_converters.quantization.quantized_model import ModelIO

# Number of samples that both files are run on.
COMPARED = 16


def compare_without_maps(
    path: Path,
    format: str,
    scheme: str,
    model_io: ModelIO,
    samples: Tensors,
    convert_without_maps: Callable[[Path], Any] | None,
    runtime: str | None = None,
) -> float:
    """The largest difference between the main outputs with and without attention maps.

    ``convert_without_maps`` writes the file that the converter makes without maps. If it is
    ``None``, the maps are removed from the outputs of the file at ``path`` instead. ``runtime`` is
    the only one that the file is for, if there is one. Raises :class:`ConversionError` if the
    difference exceeds the scheme's limits.
    """
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / f"without.{format}"
        if convert_without_maps is None:
            other.write_bytes(_REMOVE_MAPS[format](path.read_bytes(), model_io))
        else:
            convert_without_maps(other)
        rows = {name: array[:COMPARED] for name, array in samples.items()}
        open_file = partial(open_runner, format=format, inputs=model_io.inputs, runtime=runtime)
        with_maps = _run(open_file(path, outputs=model_io.outputs), rows)
        without = _run(open_file(other, outputs=model_io.main), rows)
    return max(
        _difference(spec.name, scheme, without[spec.name], with_maps[spec.name])
        for spec in model_io.main
    )


def matches_keras(
    path: Path,
    format: str,
    model_io: ModelIO,
    reference: Tensors,
    runtime: str | None = None,
) -> bool:
    """Whether the main outputs of a float32 file are those of Keras.

    ``reference`` has inputs and the outputs of ``model.predict``, which computes no maps. If the
    file matches them, its maps do not change its outputs, whatever a file without maps computes.
    """
    limits = LIMITS["float32"]
    rows = {spec.name: reference[f"input/{spec.name}"][:COMPARED] for spec in model_io.inputs}
    runner = open_runner(path, format, model_io.inputs, model_io.outputs, runtime=runtime)
    outputs = _run(runner, rows)
    for spec in model_io.main:
        expected, actual = reference[f"output/{spec.name}"][:COMPARED], outputs[spec.name]
        if expected.shape != actual.shape:
            return False
        ratio = metrics.tolerance_ratio(expected, actual, atol=limits.atol, rtol=limits.rtol)
        if not ratio <= 1:  # NaN matches nothing
            return False
    return True


def _difference(name: str, scheme: str, without: Any, with_maps: Any) -> float:
    limits = LIMITS[scheme]
    if without.shape != with_maps.shape:
        raise ConversionError(
            f"Exporting attention maps changes the shape of output {name!r} from "
            f"{without.shape} to {with_maps.shape}.",
            hint="Convert with --no-attention, and please report this model.",
        )
    if metrics.new_non_finite(without, with_maps):
        raise ConversionError(
            f"Exporting attention maps makes values of output {name!r} NaN or infinite.",
            hint="Convert with --no-attention, and please report this model.",
        )
    finite = np.isfinite(without)
    without, with_maps = (np.where(finite, value, 0) for value in (without, with_maps))
    ratio = metrics.tolerance_ratio(without, with_maps, atol=limits.atol, rtol=limits.rtol)
    difference = metrics.max_abs_error(without, with_maps)
    if ratio > 1 and metrics.snr_db(without, with_maps) < limits.snr_db:
        raise ConversionError(
            f"Exporting attention maps changes output {name!r} by {difference:.2g}.",
            hint="Convert with --no-attention, and please report this model.",
        )
    return difference


def _run(runner: Runner, samples: Tensors) -> Tensors:
    with contextlib.closing(runner):
        return runner.run(samples)


def _remove_maps_tflite(content: bytes, model_io: ModelIO) -> bytes:
    from edgeattn_converters.graphs.tflite_file import TFLiteFile

    file = TFLiteFile(content)
    main = [
        int(index)
        for index, spec in zip(file.main.outputs, model_io.outputs, strict=True)
        if spec.name not in model_io.maps
    ]
    file.main.outputs = main
    file.set_signature(model_io.inputs, model_io.main)
    return file.pack()


def _remove_maps_onnx(content: bytes, model_io: ModelIO) -> bytes:
    import onnx

    from edgeattn_converters.graphs.onnx_file import set_outputs

    proto = onnx.load_from_string(content)
    set_outputs(proto, [spec.name for spec in model_io.main])
    return bytes(proto.SerializeToString())


_REMOVE_MAPS: dict[str, Callable[[bytes, ModelIO], bytes]] = {
    "tflite": _remove_maps_tflite,
    "onnx": _remove_maps_onnx,
}
