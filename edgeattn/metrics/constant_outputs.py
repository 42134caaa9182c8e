"""Outputs that are the same for every sample: dead units, or a file that ignores its input."""

from typing import ClassVar

import numpy as np

from edgeattn.metrics.merging import Mergeable, Rule
from edgeattn.printable import counted
from edgeattn.tensors import Array, Tensors

# Values that differ by less than this share of the largest magnitude are the same: float32 has
# 2**-23, and sums in another order lose a few bits.
ROUNDING = 2.0**-20


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
