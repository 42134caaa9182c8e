"""Models for several sequence lengths as one function of a sample."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeattn.errors import BundleError, SampleError
from edgeattn.inference.any_length import ModelOfAnyLength
from edgeattn.inference.model import Model
from edgeattn.printable import enumerated
from edgeattn.runners.batching import missing_input
from edgeattn.tensors import Array, Tensors


class ModelByLength(Model):
    """The models of a folder with one bundle for each sequence length.

    The shape of a sample selects the model. Samples of other lengths have one if an artifact
    accepts any length. ``artifact``, ``runtime``, ``inputs`` and ``outputs`` are those of the
    shortest length, and ``models`` has all by their lengths.
    """

    def __init__(self, models: Mapping[int, Model]) -> None:
        self.models = dict(models)
        first = next(iter(self.models.values()))
        self.artifact, self.runtime = first.artifact, first.runtime
        self.inputs, self.outputs = first.inputs, first.outputs
        self.front_end = first.front_end
        names = [
            spec.name
            for position, spec in enumerate(first.inputs)
            if len({model.artifact.inputs[position].shape for model in self.models.values()}) > 1
        ]
        if not names:
            raise BundleError(
                "The bundles of different sequence lengths have the same inputs.",
                hint="Convert the model again, with --time-steps for each length.",
            )
        self._input = next(spec for spec in first.inputs if spec.name == names[0])
        self._of_any_length = next(
            (model for model in self.models.values() if isinstance(model, ModelOfAnyLength)), None
        )
        self._by_shape: dict[tuple[int | None, ...], Model] = {}
        for model in self.models.values():
            shape = next(spec.shape for spec in model.artifact.inputs if spec.name == names[0])
            self._by_shape[shape[1:]] = self._by_shape[(1, *shape[1:])] = model

    def __repr__(self) -> str:
        return f"<Model for {', '.join(map(str, self.models))} steps: {list(self.models.values())}>"

    def __call__(self, sample: Array | Mapping[str, Array]) -> Tensors:
        """The outputs of the model for the length of ``sample``, see :meth:`Model.__call__`.

        Raises :class:`SampleError` also if there is no model for the length.
        """
        if isinstance(sample, Mapping) and self._input.name not in sample:
            raise missing_input(self._input, sample)
        values = sample[self._input.name] if isinstance(sample, Mapping) else sample
        model = self._by_shape.get(np.shape(values), self._of_any_length)
        if model is None:
            others = {model.any_length for model in self.models.values()} - {None}
            hint = "Pad the sample, or convert the model with --time-steps for its length too."
            if others:
                labels = enumerated(sorted(map(str, others)), "or")
                hint = f"Load artifacts for sequences of any length: {labels}."
            raise SampleError(
                f"Input {self._input.name}: received a sample of shape {np.shape(values)}, but the "
                f"sequence lengths are {', '.join(map(str, self.models))}.",
                hint=hint,
            )
        return model(sample)

    def reset(self) -> None:
        """Do nothing: models for several lengths carry no states."""
