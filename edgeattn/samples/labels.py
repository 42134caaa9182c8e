"""Labels of samples: the kind of task that they define for an output, and their true values."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.tensors import Array

# The array of the only output's labels, and the prefix of those of one of several.
TARGETS = "y"
# Kinds of tasks, as named in reports.
CLASSIFICATION, BINARY, REGRESSION = "classes", "yes or no", "amounts"


@dataclass(frozen=True)
class LabelSummary:
    """Properties of labels that determine the kind of task.

    ``shape`` is that of one sample's label. Summaries of parts are combined with ``|``.
    """

    shape: tuple[int, ...]
    kind: str  # numpy's code for the kind of dtype
    samples: int
    finite: bool
    integral: bool
    low: float
    high: float
    one_hot: bool
    values: frozenset[float]  # 0 and 1 if present, and -1 for any other value

    @classmethod
    def of(cls, labels: Array) -> LabelSummary:
        """The summary of ``labels``, ``(samples, ...)``."""
        labels = np.asarray(labels)
        kind = labels.dtype.kind
        if kind not in "buif" or not labels.ndim:
            return cls(labels.shape[1:], kind, len(np.atleast_1d(labels)), *_UNKNOWN)
        is_binary = np.isin(labels, (0, 1))
        values = ((0.0, labels == 0), (1.0, labels == 1), (-1.0, ~is_binary))
        return cls(
            shape=labels.shape[1:],
            kind=kind,
            samples=len(labels),
            finite=bool(np.isfinite(labels).all()),
            integral=kind in "bui" or bool((labels == np.rint(labels)).all()),
            low=float(labels.min()) if labels.size else 0.0,
            high=float(labels.max()) if labels.size else 0.0,
            one_hot=labels.ndim > 1 and bool(is_binary.all() and (labels.sum(-1) == 1).all()),
            values=frozenset(value for value, positions in values if positions.any()),
        )

    def __or__(self, other: LabelSummary) -> LabelSummary:
        return LabelSummary(
            self.shape,
            self.kind,
            self.samples + other.samples,
            self.finite and other.finite,
            self.integral and other.integral,
            min(self.low, other.low),
            max(self.high, other.high),
            self.one_hot and other.one_hot,
            self.values | other.values,
        )


_UNKNOWN = (True, False, 0.0, 0.0, False, frozenset[float]())


def task_kind(output: str, summary: LabelSummary, shape: tuple[int, ...]) -> str:
    """The kind of task that labels define for an output of ``shape`` (without the batch axis).

    Classification for class numbers or one-hot rows, if the output has a class axis; binary
    classification for labels of the output's shape that are 0 and 1; otherwise regression, for
    labels of the output's shape. Raises :class:`SampleError` for other labels.
    """
    if summary.kind not in "buif":
        raise SampleError(f"The labels of output {output!r} are not numbers.")
    if not summary.finite:
        raise SampleError(f"The labels of output {output!r} contain NaN or infinity.")
    classes = shape[-1] if shape else 1
    squeezed = summary.shape[:-1] if summary.shape[-1:] == (1,) else summary.shape
    if classes > 1 and summary.shape == shape and summary.integral and summary.one_hot:
        return CLASSIFICATION
    if classes > 1 and squeezed == shape[:-1]:
        if not summary.integral or summary.low < 0 or summary.high >= classes:
            raise SampleError(
                f"Output {output!r} has {classes} classes, but its labels range from "
                f"{summary.low:g} to {summary.high:g}.",
                hint=f"Use class numbers from 0 to {classes - 1}.",
            )
        return CLASSIFICATION
    if math.prod(summary.shape) == math.prod(shape):
        # Both 0 and 1 must occur: labels that are all 0, for example, may be amounts.
        is_binary = summary.integral and summary.values == {0.0, 1.0}
        return BINARY if is_binary else REGRESSION
    raise SampleError(
        f"Output {output!r} has the shape {('samples', *shape)}, its labels "
        f"{('samples', *summary.shape)}.",
        hint="Use class numbers, one-hot rows, zeros and ones, or values of the output's shape.",
    )


def check_labels(output: str, summary: LabelSummary, shape: tuple[int, ...]) -> None:
    """Raise :class:`SampleError` if no score is defined for labels of an output of ``shape``."""
    kind = task_kind(output, summary, shape)
    if kind == REGRESSION and summary.low == summary.high:
        raise equal_labels(output)


def equal_labels(output: str) -> SampleError:
    """The error if R2 is undefined."""
    return SampleError(
        f"The labels of output {output!r} are all the same, so that R2 is undefined.",
        hint="Give samples with different labels, or leave the labels out with --ignore.",
    )


def true_values(kind: str, labels: Array, shape: tuple[int, ...]) -> Array:
    """Labels in the form of the output's predictions: classes, 0 and 1, or real values."""
    labels = np.asarray(labels)
    if kind == REGRESSION:
        return labels.reshape(len(labels), *shape)
    if kind == BINARY:
        return labels.reshape(len(labels), *shape).astype(np.int64)
    if labels.shape[1:] == shape:
        classes: Array = np.argmax(labels, -1)
        return classes
    return labels.reshape(len(labels), *shape[:-1]).astype(np.int64)


def label_arrays(names: Collection[str], outputs: Sequence[str]) -> dict[str, str]:
    """The name of the array with the labels of each output that has labels.

    ``names`` are those of the arrays that are no inputs. Labels are named ``y/OUTPUT`` or as the
    output itself; ``y`` are the labels of the only output. Raises :class:`SampleError` if an array
    is no label of an output, or if an output has two.
    """
    arrays: dict[str, str] = {}
    several: list[str] = []
    for output in outputs:
        named = [name for name in (f"{TARGETS}/{output}", output) if name in names]
        if named:
            arrays[output] = named[0]
            several += named[1:]
    if TARGETS in names and not arrays:
        if len(outputs) > 1:
            raise SampleError(
                f"The model has {len(outputs)} outputs ({', '.join(outputs)}), but the labels are "
                "a single array.",
                hint="Name the labels after the outputs: "
                + ", ".join(f"{TARGETS}/{name}" for name in outputs),
            )
        arrays = {outputs[0]: TARGETS}
    if several:
        raise SampleError(
            f"Output {several[0]!r} has two arrays of labels: {TARGETS}/{several[0]} and "
            f"{several[0]}.",
            hint=f"Leave one out: --ignore {several[0]}",
        )
    unused = [name for name in names if name not in arrays.values()]
    if unused:
        raise unused_arrays(unused, outputs)
    return arrays


def unused_arrays(names: Sequence[str], outputs: Sequence[str]) -> SampleError:
    """The error about arrays of a file of samples that are neither inputs nor labels."""
    listed = ", ".join(map(repr, names))
    return SampleError(
        f"Arrays that nothing uses: {listed}. Labels can be of these outputs: "
        f"{', '.join(outputs)}.",
        hint="Name labels 'y' or 'y/OUTPUT', and leave out what is not needed: "
        + " ".join(f"--ignore {name}" for name in names),
    )
