"""One artifact: a model in one format and scheme."""

import functools
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeattn.bundle.manifest import REFERENCE, Artifact, sha256
from edgeattn.errors import UnsupportedModelError
from edgeattn.samples.fingerprints import row_fingerprints
from edgeattn.samples.npz import read_npz
from edgeattn_converters.formats import ConvertedFile, free_time
from edgeattn_converters.formats.unchanged_outputs import compare_without_maps, matches_keras
from edgeattn_converters.options import ConversionOptions, QuantizationOptions
from edgeattn_converters.quantization.quantized_model import ModelIO
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.free_time import FreeModel
from edgeattn_converters.worker.open_model import Json, OpenModel
from edgeattn_converters.worker.quantization_samples import (
    quantization_samples,
    selection_inputs,
    with_reference,
)


@dataclass(frozen=True)
class ArtifactRequest:
    """The format and the scheme of an artifact, and the options for it."""

    format: str
    scheme: str
    options: ConversionOptions
    quantization: QuantizationOptions


def convert_artifact(
    opened: OpenModel, request: ArtifactRequest, folder: Path, reference: Json | None
) -> Artifact:
    """Write the artifact to ``folder``; its entry in the manifest.

    ``reference`` is the manifest's entry for the reference in ``folder``. A candidate that fails on
    it is rejected.
    """
    format, scheme, chosen = request.format, request.scheme, request.quantization
    if (reference or {}).get("mixes_samples"):
        opened = replace(opened, interface=replace(opened.interface, mixes_samples=True))
    measured, samples = quantization_samples(opened, chosen, str(folder), scheme)
    name = f"{Path(opened.source.path).stem}.{scheme}.{format}"
    path = folder / name
    start = time.perf_counter()
    converter = importlib.import_module(f"edgeattn_converters.formats.{format}")
    convert = functools.partial(
        converter.convert,
        opened.model,
        opened.interface,
        recipe_for(scheme),
        quantization=chosen,
        options=request.options,
        samples=with_reference(samples, opened.interface, folder, reference),
    )
    try:
        file, free, achieved = _converted(convert, path, opened, request)
    except RecursionError as error:
        raise UnsupportedModelError("The model is nested too deeply to be traced.") from error
    if free is not None:
        convert = functools.partial(convert, free=free)
    if file.attention:
        without_maps = _without_maps(convert, path, file, request, reference)
        achieved["difference_by_maps"] = compare_without_maps(
            path,
            format,
            scheme,
            ModelIO(file.inputs, file.outputs, file.attention),
            selection_inputs(opened),
            without_maps,
            runtime=chosen.runtime,
        )
    if measured is not None:
        achieved["calibration"] = {
            "samples": len(measured),
            "notes": list(measured.notes),
            "digests": row_fingerprints(measured.inputs, opened.interface.inputs),
        }
    achieved["seconds"] = round(time.perf_counter() - start, 3)
    return Artifact(
        format=format,
        scheme=scheme,
        path=name,
        sha256=sha256(path),
        bytes=path.stat().st_size,
        inputs=file.inputs,
        outputs=file.outputs,
        attention=file.attention,
        achieved=achieved,
        runtimes=converter.runtimes(achieved),
        free_axes={} if free is None else dict(free.axes),
    )


def _converted(
    convert: Callable[..., ConvertedFile], path: Path, opened: OpenModel, request: ArtifactRequest
) -> tuple[ConvertedFile, FreeModel | None, dict[str, Any]]:
    """The file, the model with the axes that are free in it, and what the file achieved.

    Only ONNX files have free axes, if the model has them and the file computes the same.
    """
    achieved: dict[str, Any] = {}
    if request.format == "onnx" and opened.free is not None:
        arrays = read_npz(path.parent / REFERENCE)
        file, free, reason = free_time.convert_free(
            convert, path, request.scheme, arrays, opened.free
        )
        if file is not None:
            return file, free, dict(file.achieved)
        achieved["fixed_length"] = reason
    file = convert(path)
    return file, None, {**achieved, **file.achieved}


def _without_maps(
    convert: Callable[..., ConvertedFile],
    path: Path,
    file: ConvertedFile,
    request: ArtifactRequest,
    reference: Json | None,
) -> Callable[[Path], ConvertedFile] | None:
    """The conversion without attention maps, if the outputs are to be compared with it."""
    # The other schemes are made from the float32 file, so one such comparison is enough.
    if request.scheme != "float32":
        return None
    # The conversion takes seconds. If maps changed the outputs, they would not be those of Keras.
    model_io = ModelIO(file.inputs, file.outputs, file.attention)
    if reference is not None:
        arrays = read_npz(path.parent / REFERENCE)
        if matches_keras(path, request.format, model_io, arrays, request.quantization.runtime):
            return None
    options = replace(request.options, attention=False, attention_layers=())
    return functools.partial(convert, options=options)
