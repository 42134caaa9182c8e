"""Datasets of other sequence lengths than the bundle's, for artifacts that accept any length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeattn.errors import SampleError
from edgeattn.samples.files import SampleFile
from edgeattn.tensors import Specs

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact


def open_fitting(
    open_file: Callable[[Specs], SampleFile], artifacts: Sequence[Artifact]
) -> tuple[SampleFile, Artifact]:
    """The file of samples, and the first artifact with the shapes of these samples.

    Its outputs have ``None`` for axes of any length if the samples have another length. Raises
    :class:`SampleError` if the samples do not fit every artifact.
    """
    first = artifacts[0]
    try:
        return open_file(first.inputs), first
    except SampleError as error:
        free = [artifact for artifact in artifacts if artifact.free_axes]
        try:
            file = open_file(free[0].free_inputs) if free else None
        except SampleError:
            file = None
        if file is None or file.path.suffix.lower() == ".csv":
            raise  # it is not about the length
        fixed = [artifact.label for artifact in artifacts if not artifact.free_axes]
        if fixed:
            raise SampleError(
                f"{error.message} Artifacts of one length: {', '.join(fixed)}.",
                hint=f"Evaluate those of any length only: {_options(free, artifacts)} (or convert "
                "with --time-steps of that length).",
            ) from error
    shapes = {name: array.shape[1:] for name, array in file.inputs.items()}
    specs = tuple(
        replace(spec, shape=(spec.shape[0], *shapes.get(spec.name, spec.shape[1:])))
        for spec in first.inputs
    )
    return open_file(specs), replace(first, inputs=specs, outputs=first.free_outputs)


def _options(chosen: Sequence[Artifact], artifacts: Sequence[Artifact]) -> str:
    """The options that select ``chosen`` of ``artifacts``."""
    formats = list(dict.fromkeys(artifact.format for artifact in chosen))
    schemes = list(dict.fromkeys(artifact.scheme for artifact in chosen))
    words = [f"--format {name}" for name in formats]
    if any(artifact.format in formats and artifact not in chosen for artifact in artifacts):
        words += [f"--scheme {name}" for name in schemes]
    return " ".join(words)
