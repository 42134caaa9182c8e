"""ONNX files of models with a free time axis, which accept sequences of any length.

The graph of such a file is traced with a free axis. If that fails, or if the file does not compute
as Keras does at other lengths, the file has the fixed length.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import EdgeattnError, SchemeError, first_line
from edgeattn.printable import counted
from edgeattn.runners import open_runner
from edgeattn.tensors import Tensors
from edgeattn.validation.lengths import by_length, length_checks, run_lengths
from edgeattn_converters.formats import ConvertedFile
from edgeattn_converters.tracing.free_time import FreeModel

Axes = Mapping[str, tuple[int, ...]]
_NOT_COMPUTED = (
    "Keras itself does not compute the model at several other lengths, or not as a graph with free "
    "axes."
)
_FAILED = "onnxruntime cannot compute the file with a free time axis"


def _free_axes(reference: Tensors, lengths: Mapping[int, Tensors]) -> dict[str, tuple[int, ...]]:
    """The axes whose sizes depend on the sequence length, by the name of the input or output.

    ``lengths`` are the arrays of the reference for other lengths.
    """
    axes: dict[str, tuple[int, ...]] = {}
    for key, array in reference.items():
        shapes = [array.shape, *(arrays[key].shape for arrays in lengths.values() if key in arrays)]
        varying = tuple(k for k in range(1, array.ndim) if len({shape[k] for shape in shapes}) > 1)
        if varying:
            axes[key.removeprefix("input/").removeprefix("output/")] = varying
    return axes


def convert_free(
    convert: Callable[..., ConvertedFile],
    path: Path,
    scheme: str,
    reference: Tensors,
    free: FreeModel,
) -> tuple[ConvertedFile | None, FreeModel | None, str]:
    """The file that ``convert`` writes and the model with its free axes, or why it has none.

    Raises :class:`SchemeError` if the scheme cannot be achieved.
    """
    lengths = by_length(reference)
    axes = _free_axes(reference, lengths)
    if not axes:
        return None, None, _NOT_COMPUTED
    free = replace(free, axes=tuple(axes.items()))
    try:
        file = convert(path, free=free)
    except SchemeError:
        raise
    except (EdgeattnError, TypeError, ValueError, AttributeError) as error:
        # A lowering that needs the length raises errors of Python.
        return None, None, first_line(error)
    reason = _difference(file, path, scheme, axes, lengths)
    return (file, free, "") if reason is None else (None, None, reason)


def _difference(
    file: ConvertedFile, path: Path, scheme: str, axes: Axes, lengths: Mapping[int, Tensors]
) -> str | None:
    """How the file differs from Keras at other lengths; None if it does not."""
    artifact = Artifact(
        "onnx", scheme, path.name, "", 0, file.inputs, file.outputs, file.attention, free_axes=axes
    )
    try:
        with contextlib.closing(open_runner(path, "onnx", file.inputs, file.outputs)) as runner:
            results = run_lengths(runner, artifact, lengths)
    except EdgeattnError:
        return f"{_FAILED}."
    failed = [steps for steps, result in results.items() if isinstance(result, str)]
    if failed:
        return f"{_FAILED} for sequences of {counted(failed[0], 'step')}."
    for check in length_checks(artifact, lengths, results):
        if not check.passed:
            return f"{check.output} differs from Keras {check.detail}"
    return None
