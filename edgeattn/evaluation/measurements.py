"""What an evaluation measures of every artifact, batch by batch, in memory of constant size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from edgeattn.evaluation.accumulators import TaskAccumulator
from edgeattn.evaluation.dataset import Dataset, main_outputs
from edgeattn.metrics.constant_outputs import ConstancyCheck, constant_output
from edgeattn.metrics.limits import (
    Check,
    Limit,
    Limits,
    checks_of,
    holds_for_every_sample,
    limits_for,
)
from edgeattn.metrics.lost_values import ConstantHeads, LostValues, negligible_values
from edgeattn.metrics.running_attention import RunningAttention
from edgeattn.metrics.running_metrics import RunningMetrics
from edgeattn.printable import counted
from edgeattn.tensors import Array, Tensors

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.evaluation.results import TaskResult


_OfOutput = TypeVar("_OfOutput")
_OfMap = TypeVar("_OfMap")


class Measurements:
    """Scores, errors of outputs and of attention maps, and outputs that never change.

    ``reference_name`` is what produces the expected outputs. Samples for which it gives NaN are
    left out and counted, output by output: nothing can be right there.
    """

    def __init__(
        self,
        dataset: Dataset,
        artifacts: Sequence[Artifact],
        limits: Sequence[Limit],
        reference_name: str,
    ) -> None:
        self._dataset, self._limits, self._reference_name = dataset, limits, reference_name
        facts = dataset.label_summaries
        self._scores = {
            artifact.label: {
                name: TaskAccumulator(name, facts[name])
                for name in main_outputs(artifact)
                if name in facts
            }
            for artifact in artifacts
        }
        self._metrics: dict[str, dict[str, RunningMetrics | RunningAttention]] = {
            artifact.label: _of_outputs_and_maps(artifact, limits, RunningMetrics, RunningAttention)
            for artifact in artifacts
        }
        self._lost: dict[str, dict[str, LostValues | ConstantHeads]] = {
            # The tolerance of float32 is smaller than any value that could be lost.
            artifact.label: {}
            if artifact.scheme == "float32"
            else _of_outputs_and_maps(artifact, limits, LostValues, ConstantHeads)
            for artifact in artifacts
        }
        outputs = list(dict.fromkeys(name for item in artifacts for name in main_outputs(item)))
        # Of the reference, under its name, and of each artifact.
        self._constancy = {
            label: {name: ConstancyCheck() for name in outputs}
            for label in (reference_name, *self._metrics)
        }
        maps = dict.fromkeys(name for item in artifacts for name in item.attention)
        self._left_out = {name: np.zeros((), np.int64) for name in (*outputs, *maps)}

    def add(self, labels: Tensors, expected: Tensors, outputs: Mapping[str, Tensors]) -> None:
        """Add a batch: labels and expected arrays by output, and the outputs of each artifact.

        Raises :class:`SampleError` if the labels do not fit their output.
        """
        usable = {name: _rows_without_nan(expected[name]) for name in expected}
        for name, count in self._left_out.items():
            if name in usable:
                self._left_out[name] = count + int((~usable[name]).sum())
        self._add_constancy(self._reference_name, expected, usable)
        for label, actual in outputs.items():
            self._add_constancy(label, actual, usable)
            for name, metrics in self._metrics[label].items():
                if name in usable and usable[name].any():
                    want = np.asarray(expected[name])[usable[name]]
                    got = actual[name][usable[name]]
                    metrics.add(want, got)
                    if name in self._lost[label]:
                        self._lost[label][name].add(want, got)
            for name, scores in self._scores[label].items():
                rows = usable[name]
                if rows.any():
                    want = np.asarray(expected[name])[rows]
                    scores.add(np.asarray(labels[name])[rows], want, actual[name][rows])

    def _add_constancy(self, label: str, outputs: Tensors, usable: Mapping[str, Array]) -> None:
        for name, constancy in self._constancy[label].items():
            if name in outputs and name in usable:
                constancy.add(np.asarray(outputs[name])[usable[name]])

    def scores(self, artifact: Artifact) -> tuple[TaskResult, ...]:
        """The result of each output with labels."""
        return tuple(
            result
            for name, scores in self._scores[artifact.label].items()
            if (result := scores.result(limits_for(artifact.scheme, name, self._limits)))
        )

    def checks(self, artifact: Artifact) -> Iterator[Check]:
        """The checks of the outputs and maps of an artifact."""
        for name, metrics in self._metrics[artifact.label].items():
            if metrics.empty:
                continue
            stage = "attention" if name in artifact.attention else "numbers"
            check = checks_of(artifact.label, stage, name, self._dataset.source)
            yield check("non_finite", float(metrics.new_non_finite), 0.0)
            # The errors of the fallback reference are within the limits of float32, far below those
            # of the other schemes.
            strict = holds_for_every_sample(name, self._limits)
            yield from metrics.checks(check, dataset=not strict)
            if lost := self._lost[artifact.label].get(name):
                yield from lost.checks(check)

    def warnings(self, artifact: Artifact, *, all_outputs: bool) -> Iterator[str]:
        """Outputs that never change, samples that are left out, and maps without counterpart.

        ``all_outputs`` says whether the reference should have all outputs and maps.
        """
        label, name_of, source = artifact.label, self._reference_name, self._dataset.source
        samples = len(self._dataset)
        for name, constancy in self._constancy[label].items():
            if not self._dataset.varied or name not in self._metrics[label]:
                continue
            if self._constancy[name_of][name].constant:
                yield constant_output(name, name_of, source, samples)
            elif constancy.constant:
                yield constant_output(name, label, source, samples, name_of)
            elif lost := self._lost[label].get(name):
                yield from negligible_values(name, label, source, samples, lost.lost)
        for name, metrics in self._metrics[label].items():
            if self._left_out[name]:
                yield (
                    f"left out for {name!r}, because {name_of} gives NaN: "
                    f"{int(self._left_out[name]):,} of {counted(samples, 'sample')} ({source})"
                )
            elif metrics.empty and all_outputs:
                yield f"{name!r} of {label} was not compared on {source}: {name_of} has none"

    @property
    def state(self) -> dict[str, Array]:
        """A copy of the state of all accumulators."""
        state = {f"left_out.{name}": np.array(count) for name, count in self._left_out.items()}
        for prefix, part in self._parts():
            state |= {f"{prefix}{name}": np.array(array) for name, array in part.state.items()}
        return state

    def restore(self, state: Tensors) -> None:
        """Continue from the ``state`` of an earlier evaluation."""
        self._left_out = {name: np.array(state[f"left_out.{name}"]) for name in self._left_out}
        for prefix, part in self._parts():
            # Arrays from a file can be read-only.
            part.state = {
                name.removeprefix(prefix): np.array(array)
                for name, array in state.items()
                if name.startswith(prefix)
            }

    def merge(self, state: Tensors) -> None:
        """Add the ``state`` of an evaluation of other batches."""
        for name, count in self._left_out.items():
            self._left_out[name] = count + state[f"left_out.{name}"]
        for prefix, part in self._parts():
            part.merge(
                {
                    name.removeprefix(prefix): array
                    for name, array in state.items()
                    if name.startswith(prefix)
                }
            )

    def _parts(self) -> Iterator[tuple[str, Any]]:
        groups: dict[str, Mapping[str, Mapping[str, Any]]] = {
            "task": self._scores,
            "numbers": self._metrics,
            "constancy": self._constancy,
            "lost": self._lost,
        }
        for kind, group in groups.items():
            for number, parts in enumerate(group.values()):
                for position, part in enumerate(parts.values()):
                    yield f"{kind}.{number}.{position}.", part


def _rows_without_nan(array: Array) -> Array:
    """A mask of the rows that contain no NaN."""
    array = np.asarray(array)
    if array.dtype.kind not in "fc":
        return np.ones(len(array), bool)
    return np.logical_not(np.isnan(array).reshape(len(array), -1).any(-1, keepdims=True))[:, 0]


def _of_outputs_and_maps(
    artifact: Artifact,
    limits: Sequence[Limit],
    of_output: Callable[[Limits], _OfOutput],
    of_map: Callable[[Limits], _OfMap],
) -> dict[str, _OfOutput | _OfMap]:
    """A measurement of each output and map of an artifact, with its limits, by name."""
    return {
        **{
            name: of_output(limits_for(artifact.scheme, name, limits))
            for name in main_outputs(artifact)
        },
        **{name: of_map(limits_for(artifact.scheme, name, limits)) for name in artifact.attention},
    }
