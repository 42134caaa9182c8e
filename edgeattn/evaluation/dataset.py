"""Datasets: samples of the user on which artifacts are compared with a reference.

The reference is the original Keras model, if the converters and the model's file are present. On a
device it is the *fallback reference*, a float32 artifact of the same bundle that agrees with Keras
on the bundle's own reference.

:class:`InMemoryDataset` is for evaluating many artifacts on the same samples;
:class:`~edgeattn.evaluation.file_dataset.FileDataset` reads one batch at a time from a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgeattn import progress
from edgeattn.evaluation.keras_reference import KERAS
from edgeattn.metrics.constant_outputs import is_varied
from edgeattn.printable import counted
from edgeattn.samples.labels import LabelSummary
from edgeattn.tensors import Array, Tensors

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.runners import Runner

# A batch is run by a freshly loaded artifact, its samples consecutively. It contains at most
# BATCH_SIZE samples, and fewer if their inputs and outputs take more than BATCH_BYTES.
BATCH_SIZE = 1024
BATCH_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Batch:
    """Samples of a dataset: inputs, labels by output, and the reference's outputs, if known."""

    number: int
    inputs: Tensors
    labels: Tensors
    reference_outputs: Tensors | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


class Dataset(Protocol):
    """Samples that artifacts can be evaluated on. ``len(dataset)`` is the number of samples.

    Attributes:
        source: File name of the samples.
        notes: What was left out, and why.
        reference_name: What produces the outputs of the reference; empty until that is known.
        fallback_reference: Label of the artifact that produced them; None if it was Keras.
        label_summaries: Facts about the labels of each output that has labels.
        fingerprint: A hash of the data, which identifies a checkpoint; None if there is none.
        keras: The Keras model, if it is to run as the reference.
        varied: Whether two samples differ.
    """

    @property
    def source(self) -> str: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def reference_name(self) -> str: ...
    @property
    def fallback_reference(self) -> str | None: ...
    @property
    def label_summaries(self) -> Mapping[str, LabelSummary]: ...
    @property
    def fingerprint(self) -> str | None: ...
    @property
    def keras(self) -> Callable[[Tensors], Tensors] | None: ...
    @property
    def varied(self) -> bool: ...
    def __len__(self) -> int: ...
    def batches(self, first: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """The batches from number ``first`` on, those before ``stop`` only if it is given."""
        ...


@dataclass(frozen=True)
class InMemoryDataset:
    """A dataset in memory: arrays with the sample axis first, by input or by output."""

    inputs: Tensors
    labels: Mapping[str, Array]
    source: str
    reference_name: str = ""
    reference_outputs: Tensors = field(default_factory=dict)
    fallback_reference: str | None = None
    notes: tuple[str, ...] = ()
    fingerprint: str | None = None
    keras: None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def varied(self) -> bool:
        return is_varied(self.inputs)

    @property
    def label_summaries(self) -> Mapping[str, LabelSummary]:
        return {name: LabelSummary.of(labels) for name, labels in self.labels.items()}

    def batches(self, first: int = 0, stop: int | None = None) -> Iterator[Batch]:
        count = math.ceil(len(self) / BATCH_SIZE)
        for number in range(first, count if stop is None else min(stop, count)):
            rows = slice(number * BATCH_SIZE, (number + 1) * BATCH_SIZE)
            yield Batch(
                number,
                {name: array[rows] for name, array in self.inputs.items()},
                {name: array[rows] for name, array in self.labels.items()},
                {name: array[rows] for name, array in self.reference_outputs.items()} or None,
            )

    def with_fallback_reference(self, artifact: Artifact, runner: Runner) -> InMemoryDataset:
        """This dataset with the outputs of a float32 artifact as those of the reference."""
        return replace(
            self,
            reference_outputs=self._outputs(runner.run, artifact.label),
            reference_name=fallback_name(artifact),
            fallback_reference=artifact.label,
        )

    def with_keras_outputs(self, predict: Callable[[Tensors], Tensors]) -> InMemoryDataset:
        """This dataset with the outputs of Keras, which ``predict`` returns for a batch."""
        return replace(self, reference_outputs=self._outputs(predict, KERAS), reference_name=KERAS)

    def _outputs(self, predict: Callable[[Tensors], Tensors], name: str) -> Tensors:
        """The outputs that have labels, computed batch by batch."""
        parts: dict[str, list[Array]] = {output: [] for output in self.labels}
        for batch in self.batches():
            done = batch.number * BATCH_SIZE
            progress.report(f"running {name}: {done:,} of {counted(len(self), 'sample')}")
            outputs = predict(batch.inputs)
            for output, arrays in parts.items():
                arrays.append(np.asarray(outputs[output]))
        return {output: np.concatenate(arrays) for output, arrays in parts.items()}


def fallback_name(artifact: Artifact) -> str:
    """The ``reference_name`` of an artifact that is the reference instead of Keras."""
    return f"{artifact.label} of this bundle (fallback reference)"


def main_outputs(artifact: Artifact) -> tuple[str, ...]:
    """The outputs of the model itself, without attention maps and states."""
    others = {*artifact.attention, *(spec.state for spec in artifact.inputs)}
    return tuple(spec.name for spec in artifact.outputs if spec.name not in others)


def batch_size(artifact: Artifact, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The number of samples of a batch, for input arrays of these shapes."""
    steps = max((shape[1] for shape in shapes.values() if len(shape) > 1), default=1)
    size = sum(8 * math.prod(shape[1:]) for shape in shapes.values())
    for spec in artifact.outputs:
        # A variable axis is as long as the longest sequence.
        size += 4 * math.prod(axis or steps for axis in spec.shape[1:])
    return max(1, min(BATCH_SIZE, BATCH_BYTES // max(1, size)))
