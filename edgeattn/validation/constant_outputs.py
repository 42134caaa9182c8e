"""Warnings about outputs that are the same for every sample of the reference."""

from collections.abc import Iterator

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import SYNTHETIC, Artifact
from edgeattn.evaluation.dataset import main_outputs
from edgeattn.evaluation.keras_reference import KERAS
from edgeattn.metrics.constant_outputs import (
    constant_output,
    is_constant,
    is_varied,
)
from edgeattn.metrics.limits import limits_for
from edgeattn.metrics.lost_values import LostValues, negligible_values
from edgeattn.tensors import Tensors


def constant_outputs(
    bundle: Bundle, artifact: Artifact, inputs: Tensors, expected: Tensors, actual: Tensors
) -> Iterator[str]:
    """A warning for each output of Keras, or else of the artifact, that never changes, and for
    each with values that change in Keras only, by too little for a limit.

    Only the samples count, not the edge cases. Arrays are by name, the sample axis first.
    """
    reference = bundle.manifest.reference
    samples = int(reference["samples"])
    if not is_varied({name: array[:samples] for name, array in inputs.items()}):
        return
    synthetic = bundle.manifest.reference_kind == SYNTHETIC
    where = ("synthetic" if synthetic else str(reference["source"]), samples)
    for name in main_outputs(artifact):
        if is_constant(expected[name][:samples]):
            yield constant_output(name, KERAS, *where)
        elif name in actual and is_constant(actual[name][:samples]):
            yield constant_output(name, artifact.label, *where, KERAS)
        elif name in actual and actual[name].shape == expected[name].shape:
            values = LostValues(limits_for(artifact.scheme, name))
            values.add(expected[name][:samples], actual[name][:samples])
            yield from negligible_values(name, artifact.label, *where, values.lost)
