"""Models for several sequence lengths as one function of a sample."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeattn.bundle.lengths import Lengths
from edgeattn.errors import BundleError, SampleError
from edgeattn.inference.any_length import ModelOfAnyLength
from edgeattn.inference.model import Model
from edgeattn.printable import enumerated
from edgeattn.runners.batching import missing_input
from edgeattn.tensors import Array, Tensors, TensorSpec


class ModelByLength(Model):
    """The models of a folder with one bundle for each sequence length.

    The shape of a sample selects the model. Samples of other lengths have one if an artifact
    accepts any length. ``artifact``, ``runtime``, ``inputs`` and ``outputs`` are those of the
    shortest length, and ``models`` has all by their lengths.
    """

    def __init__(self, models: Mapping[Lengths, Model]) -> None:
        self.models = dict(models)
        first = next(iter(self.models.values()))
        self.artifact, self.runtime = first.artifact, first.runtime
        self.inputs, self.outputs = first.inputs, first.outputs
        self.front_end = first.front_end
        self._selecting = tuple(
            spec
            for position, spec in enumerate(first.inputs)
            if len({model.artifact.inputs[position].shape for model in self.models.values()}) > 1
        )
        if not self._selecting:
            raise BundleError(
                "The bundles of different sequence lengths have the same inputs.",
                hint="Convert the model again, with --time-steps for each length.",
            )
        self._of_any_length = next(
            (model for model in self.models.values() if isinstance(model, ModelOfAnyLength)), None
        )
        self._by_shapes: dict[tuple[tuple[int | None, ...], ...], Model] = {}
        for model in self.models.values():
            shapes = {spec.name: spec.shape[1:] for spec in model.artifact.inputs}
            self._by_shapes[tuple(shapes[spec.name] for spec in self._selecting)] = model

    def __repr__(self) -> str:
        return f"<Model for {', '.join(map(str, self.models))} steps: {list(self.models.values())}>"

    def __call__(self, sample: Array | Mapping[str, Array]) -> Tensors:
        """The outputs of the model for the length of ``sample``, see :meth:`Model.__call__`.

        Raises :class:`SampleError` also if there is no model for the length.
        """
        shapes = tuple(self._shape(spec, sample) for spec in self._selecting)
        model = self._by_shapes.get(shapes, self._of_any_length)
        if model is None:
            others = {model.any_length for model in self.models.values()} - {None}
            hint = "Pad the sample, or convert the model with --time-steps for its length too."
            if others:
                labels = enumerated(sorted(map(str, others)), "or")
                hint = f"Load artifacts for sequences of any length: {labels}."
            received = ", ".join(
                f"Input {spec.name}: received a sample of shape {shape}"
                for spec, shape in zip(self._selecting, shapes, strict=True)
            )
            raise SampleError(
                f"{received}, but the sequence lengths are {', '.join(map(str, self.models))}.",
                hint=hint,
            )
        return model(sample)

    def _shape(self, spec: TensorSpec, sample: Array | Mapping[str, Array]) -> tuple[int, ...]:
        """The shape of one input without a batch axis of 1."""
        if isinstance(sample, Mapping):
            if spec.name not in sample:
                raise missing_input(spec, sample)
            received = np.shape(sample[spec.name])
        else:
            received = np.shape(sample)
        has_batch = len(received) == len(spec.shape) and received[0] == 1
        return received[1:] if has_batch else received

    def reset(self) -> None:
        """Do nothing: models for several lengths carry no states."""
