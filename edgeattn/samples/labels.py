"""Labels of samples: what kind of task they make of an output, and the truth they tell."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.tensors import Array, Tensors

CLASSES, YES_NO, AMOUNTS = "classes", "yes or no", "amounts"


@dataclass(frozen=True)
class LabelFacts:
    """All that must be known of a file's labels before any of them can be understood.

    ``shape`` is that of one sample's label. Facts of parts are joined with ``|``.
    """

    shape: tuple[int, ...]
    kind: str  # numpy's letter for the dtype
    samples: int
    finite: bool
    whole: bool
    low: float
    high: float
    one_hot: bool
    values: frozenset[float]  # zero and one, if there, and -1 for anything else

    @classmethod
    def of(cls, labels: Array) -> LabelFacts:
        """What these labels tell, the sample axis first."""
        labels = np.asarray(labels)
        kind = labels.dtype.kind
        if kind not in "buif" or not labels.ndim:
            return cls(labels.shape[1:], kind, len(np.atleast_1d(labels)), *_NOTHING)
        finite = bool(np.isfinite(labels).all())
        whole = kind in "bui" or bool((labels == np.rint(labels)).all())
        binary = np.isin(labels, (0, 1))
        one_hot = labels.ndim > 1 and bool(binary.all() and (labels.sum(-1) == 1).all())
        named = (((labels == 0).any(), 0.0), ((labels == 1).any(), 1.0), (not binary.all(), -1.0))
        return cls(
            labels.shape[1:],
            kind,
            len(labels),
            finite,
            whole,
            float(labels.min()) if labels.size else 0.0,
            float(labels.max()) if labels.size else 0.0,
            one_hot,
            frozenset(value for there, value in named if there),
        )

    def __or__(self, other: LabelFacts) -> LabelFacts:
        return LabelFacts(
            self.shape,
            self.kind,
            self.samples + other.samples,
            self.finite and other.finite,
            self.whole and other.whole,
            min(self.low, other.low),
            max(self.high, other.high),
            self.one_hot and other.one_hot,
            self.values | other.values,
        )


_NOTHING = (True, False, 0.0, 0.0, False, frozenset[float]())


def kind_of(output: str, facts: LabelFacts, answer: tuple[int, ...]) -> str:
    """What kind of task labels make of an output, one answer of which has the shape ``answer``.

    Class numbers, or one-hot rows, for an output with a class axis; 0 and 1 for one that says yes
    or no; else amounts, of the output's shape. Raises :class:`SampleError` for anything else.
    """
    shape = facts.shape
    if facts.kind not in "buif":
        raise SampleError(f"The labels of output {output!r} are no numbers.")
    if not facts.finite:
        raise SampleError(f"The labels of output {output!r} hold NaN or infinity.")
    classes = answer[-1] if answer else 1
    squeezed = shape[:-1] if shape[-1:] == (1,) else shape
    if classes > 1 and shape == answer and facts.whole and facts.one_hot:
        return CLASSES
    if classes > 1 and squeezed == answer[:-1]:
        if not facts.whole or facts.low < 0 or facts.high >= classes:
            raise SampleError(
                f"Output {output!r} tells {classes} classes, and its labels run from "
                f"{facts.low:g} to {facts.high:g}.",
                hint=f"Give class numbers from 0 to {classes - 1}.",
            )
        return CLASSES
    if math.prod(shape) == math.prod(answer):
        # Zeros and ones, both of them: an amount that happens to be whole is no decision.
        return YES_NO if facts.whole and facts.values == {0.0, 1.0} else AMOUNTS
    raise SampleError(
        f"Output {output!r} is {('samples', *answer)}, and its labels are {('samples', *shape)}.",
        hint="Give class numbers, one-hot rows, zeros and ones, or amounts of the output's shape.",
    )


def truth_of(kind: str, labels: Array, answer: tuple[int, ...]) -> Array:
    """Labels as the output's decisions look: class numbers, zeros and ones, or amounts."""
    labels = np.asarray(labels)
    if kind == AMOUNTS:
        return labels.reshape(len(labels), *answer)
    if kind == YES_NO:
        return labels.reshape(len(labels), *answer).astype(np.int64)
    if labels.shape[1:] == answer:
        numbers: Array = np.argmax(labels, -1)
        return numbers
    return labels.reshape(len(labels), *answer[:-1]).astype(np.int64)


def labels_for(targets: Tensors, outputs: tuple[str, ...]) -> dict[str, Array]:
    """The labels of each output: its own ``y/OUTPUT``, or ``y`` where there is one output.

    Raises :class:`SampleError` where it cannot be said whose labels ``y`` are.
    """
    found = {name: targets[f"y/{name}"] for name in outputs if f"y/{name}" in targets}
    if "y" in targets and not found:
        if len(outputs) > 1:
            raise SampleError(
                f"The model has {len(outputs)} outputs ({', '.join(outputs)}), and the labels are "
                "one array.",
                hint="Name them after their outputs: " + ", ".join(f"y/{n}" for n in outputs),
            )
        found = {outputs[0]: targets["y"]}
    return found
