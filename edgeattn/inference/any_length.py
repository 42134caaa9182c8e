"""A model of sequences of any length as a function of one sample."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import SampleError
from edgeattn.inference.model import Model
from edgeattn.inference.session import ONNXSession
from edgeattn.runners.batching import missing_input
from edgeattn.tensors import Array, Tensors, TensorSpec

# Arrays for inputs and outputs are kept for this many lengths.
MAX_LENGTHS = 16


class ModelOfAnyLength(Model):
    """An ONNX artifact whose inputs have free axes.

    ``inputs`` have ``None`` for these axes. Every length has arrays of its own, which the first
    call with it allocates. Carried states pass from one length to another.
    """

    def __init__(
        self,
        artifact: Artifact,
        runner: Any,
        *,
        carry_states: bool = False,
        allow_non_finite: bool = False,
    ) -> None:
        self.artifact, self.runtime = artifact, runner.runtime
        self.front_end = None
        self.inputs, self.outputs = artifact.free_inputs, artifact.outputs
        self._runner = runner
        self._allow_non_finite = allow_non_finite
        self._models: OrderedDict[tuple[tuple[int, ...], ...], Model] = OrderedDict()
        self._lengths_lock = threading.Lock()
        self._of_samples = tuple(spec for spec in self.inputs if spec.state is None)
        # The outputs with the final states, by the input that continues them.
        states = {spec.name: spec.state for spec in self.inputs if spec.state is not None}
        self._final_states = states if carry_states else {}
        self._carried: dict[str, Array] = {}
        self._states_lock = threading.Lock()

    def __call__(self, sample: Array | Mapping[str, Array]) -> Tensors:
        """The outputs by name for one sample of any length, see :meth:`Model.__call__`."""
        shapes = tuple(self._shape(spec, sample) for spec in self._of_samples)
        with self._lengths_lock:
            model = self._models.get(shapes)
            if model is None:
                model = self._models[shapes] = self._model(shapes)
                if len(self._models) > MAX_LENGTHS:
                    self._models.popitem(last=False)
            else:
                self._models.move_to_end(shapes)
        if not self._final_states:
            return model(sample)
        values = sample if isinstance(sample, Mapping) else {self._of_samples[0].name: sample}
        with self._states_lock:
            outputs = model({**self._carried, **values})
            self._carried = {
                name: outputs[final].copy() for name, final in self._final_states.items()
            }
            return outputs

    def _shape(self, spec: TensorSpec, sample: Array | Mapping[str, Array]) -> tuple[int, ...]:
        """The shape of one input, with a batch axis of 1."""
        if not isinstance(sample, Mapping):
            if len(self._of_samples) > 1:
                names = ", ".join(item.name for item in self._of_samples)
                raise SampleError(f"The model has several inputs. Pass a mapping with: {names}.")
            values: Any = sample
        elif spec.name not in sample:
            raise missing_input(spec, sample)
        else:
            values = sample[spec.name]
        received = np.shape(values)
        shape = received[1:] if len(received) == len(spec.shape) and received[0] == 1 else received
        expected = spec.shape[1:]
        if len(shape) != len(expected) or any(
            size not in (None, actual) for size, actual in zip(expected, shape, strict=True)
        ):
            axes = ", ".join("any" if size is None else str(size) for size in expected)
            raise SampleError(
                f"Input {spec.name}: expected one sample of shape ({axes}), received {received}."
            )
        return (1, *shape)

    def _model(self, shapes: tuple[tuple[int, ...], ...]) -> Model:
        known = {spec.name: shape for spec, shape in zip(self._of_samples, shapes, strict=True)}
        inputs = tuple(
            replace(spec, shape=known.get(spec.name, (1, *spec.shape[1:]))) for spec in self.inputs
        )
        # The shapes of the outputs are known only after a run.
        zeros = {
            spec.name: np.zeros(
                [axis or 1 for axis in spec.shape], "float32" if spec.quantized else spec.dtype
            )
            for spec in inputs
        }
        results = self._runner.run(zeros)
        outputs = tuple(replace(spec, shape=results[spec.name].shape) for spec in self.outputs)
        runner = copy.copy(self._runner)
        runner.inputs, runner.outputs = inputs, outputs
        return Model(
            replace(self.artifact, inputs=inputs, outputs=outputs, free_axes={}),
            ONNXSession(runner),
            allow_non_finite=self._allow_non_finite,
        )

    def reset(self) -> None:
        """Start a new sequence with the next call. Needed only with ``carry_states``."""
        with self._states_lock:
            self._carried = {}
