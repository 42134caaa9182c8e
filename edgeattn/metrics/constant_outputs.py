"""Outputs that are the same for every sample: dead units, or a file that ignores its input."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from edgeattn.metrics.merging import Mergeable, Rule
from edgeattn.printable import counted
from edgeattn.tensors import Array, Tensors

# Values that differ by less than this share of the largest magnitude are the same: float32 has
# 2**-23, and sums in another order lose a few bits.
ROUNDING = 2.0**-20
LISTED = 4  # indices in a warning


class ConstancyCheck(Mergeable):
    """Whether an output is the same for every sample, over batches.

    ``state`` contains plain arrays, so that it can be stored, restored and merged.
    """

    RULES: ClassVar[dict[str, Rule]] = {
        "lowest": np.minimum,
        "highest": np.maximum,
        "samples": np.add,
    }

    def __init__(self) -> None:
        self.state: dict[str, Array] = {}

    def add(self, output: Array) -> None:
        """Add a batch, the sample axis first."""
        if not len(output):
            return
        output = np.asarray(output, np.float64)
        self.merge(
            {
                # By value of a sample; NaN is preserved.
                "lowest": output.min(0),
                "highest": output.max(0),
                "samples": np.array(len(output), np.int64),
            }
        )

    @property
    def constant(self) -> bool:
        """Whether at least two samples were added, all with the same output."""
        if not self.state or int(self.state["samples"]) < 2:
            return False
        lowest, highest = self.state["lowest"], self.state["highest"]
        with np.errstate(invalid="ignore"):
            spread = np.max(highest - lowest, initial=0.0)
            largest = np.max(np.maximum(np.abs(lowest), np.abs(highest)), initial=0.0)
        return bool(spread <= ROUNDING * largest)

    @property
    def constant_values(self) -> frozenset[int]:
        """The indices along the last axis whose value is the same at all samples and positions."""
        if not self.state or self.state["lowest"].ndim == 0:
            return frozenset()
        axes = tuple(range(self.state["lowest"].ndim - 1))
        lowest, highest = self.state["lowest"].min(axes), self.state["highest"].max(axes)
        with np.errstate(invalid="ignore"):
            largest = np.maximum(np.abs(lowest), np.abs(highest))
            same = highest - lowest <= ROUNDING * largest
        return frozenset(np.flatnonzero(same).tolist())

    def lost_values(self, expected: "ConstancyCheck") -> list[int]:
        """The :attr:`constant_values` that change in the reference, ``expected``.

        There are none among values from 0 to 1: a class that does not occur may have no more than
        the probability 0.
        """
        if not self.state or not expected.state or int(self.state["samples"]) < 2:
            return []
        if expected.state["lowest"].min() >= 0 and expected.state["highest"].max() <= 1:
            return []
        return sorted(self.constant_values - expected.constant_values)


def lost_values(expected: Array, actual: Array) -> list[int]:
    """:meth:`ConstancyCheck.lost_values` of arrays, the sample axis first."""
    checks = ConstancyCheck(), ConstancyCheck()
    for check, output in zip(checks, (expected, actual), strict=True):
        check.add(output)
    return checks[1].lost_values(checks[0])


def is_constant(output: Array) -> bool:
    """Whether ``output``, the sample axis first, is the same for at least two samples."""
    check = ConstancyCheck()
    check.add(output)
    return check.constant


def is_varied(inputs: Tensors) -> bool:
    """Whether two samples differ; arrays have the sample axis first."""
    return any(bool((array != array[:1]).any()) for array in inputs.values() if len(array))


def constant_output(output: str, name: str, source: str, samples: int, other: str = "") -> str:
    """The warning about an output of ``name`` that is the same for all samples of ``source``."""
    text = (
        f"output {output!r} of {name} is the same for all {counted(samples, 'sample')} ({source})"
    )
    return f"{text}, that of {other} is not" if other else text


def lost_values_of(
    output: str, name: str, source: str, samples: int, other: str, values: Sequence[int]
) -> str:
    """The warning about ``values`` (indices) of an output that only ``name`` does not change."""
    indices = ", ".join(map(str, values[:LISTED])) + (", ..." if len(values) > LISTED else "")
    return (
        f"{counted(len(values), 'value')} of output {output!r} of {name} (index {indices}) never "
        f"changed on {counted(samples, 'sample')} ({source}), but changed in {other}; in "
        "integers, a small value beside large ones needs an output of its own"
    )
