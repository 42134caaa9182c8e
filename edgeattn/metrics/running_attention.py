"""The metrics of one attention map over batches, in memory of constant size."""

from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np

from edgeattn.metrics import exact_sum, pairwise
from edgeattn.metrics.limits import EXCEEDING_SHARE, WORST_FACTOR, Check, Limits
from edgeattn.metrics.merging import Mergeable, Rule
from edgeattn.tensors import Array

# A mean over many samples hides a few wrong maps, so the worst sample has a limit too: this many
# times the one of the mean.
WORST_SAMPLE = 10.0
_MAXIMA = (
    pairwise.max_abs_error,
    pairwise.row_sum_error,
    pairwise.masked_mass,
    pairwise.entropy_shift,
)
_MEANS = (pairwise.jensen_shannon, pairwise.topk_overlap, pairwise.argmax_stability)


class RunningAttention(Mergeable):
    """The metrics of :mod:`edgeattn.metrics.pairwise` by head, over all batches that were added.

    Maps are ``(samples, [heads,] [queries,] keys)``. ``state`` contains plain arrays, so that it
    can be stored, restored and merged.
    """

    RULES: ClassVar[dict[str, Rule]] = {
        "counts": np.add,
        "multi_head": np.maximum,
        "maxima": np.maximum,  # preserves NaN
        "sums": np.add,
        "exceeding": np.add,
    }

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.state: dict[str, Array] = {
            # attention rows of a head, new non-finite values
            "counts": np.zeros(2, np.int64),
            "multi_head": np.zeros((), np.int64),
            # by head: the values of _MAXIMA and the divergence of the worst sample
            "maxima": np.zeros((0, len(_MAXIMA) + 1)),
            # by head: the values of _MEANS times their numbers of rows
            "sums": exact_sum.zeros(0, len(_MEANS)),
            # by head: samples with an error beyond the limit, and all samples
            "exceeding": np.zeros((0, 2), np.int64),
        }

    def add(self, expected: Array, actual: Array) -> None:
        """Add a batch: two arrays of the same shape, the sample axis first."""
        state = self.state
        new_non_finite = int(pairwise.new_non_finite(expected, actual))
        expected, actual = pairwise.mask_equal_non_finite(expected, actual)
        multi_head = expected.ndim == 4
        if not multi_head:
            expected, actual = expected[:, None], actual[:, None]
        heads = expected.shape[1]
        if not len(state["maxima"]):
            state["maxima"] = np.zeros((heads, len(_MAXIMA) + 1))
            state["sums"] = exact_sum.zeros(heads, len(_MEANS))
            state["exceeding"] = np.zeros((heads, 2), np.int64)
        rows = expected[:, 0].size // expected.shape[-1] if expected.size else 0
        pairs = [(expected[:, head], actual[:, head]) for head in range(heads)]
        maxima = [[*(metric(*pair) for metric in _MAXIMA), _worst_sample(*pair)] for pair in pairs]
        state["maxima"] = np.maximum(state["maxima"], maxima)  # preserves NaN
        means = np.array([[metric(*pair) for metric in _MEANS] for pair in pairs])
        exact_sum.add(state["sums"], rows * means)
        most = self._limits.attention_max_abs
        beyond = [pairwise.samples_beyond(*pair, atol=most) for pair in pairs]
        state["exceeding"] += [[count, len(expected)] for count in beyond]
        state["counts"] += np.array([rows, new_non_finite], np.int64)
        state["multi_head"] = np.array(multi_head, np.int64)

    @property
    def empty(self) -> bool:
        return not self.state["counts"][0]

    @property
    def new_non_finite(self) -> int:
        """The number of weights that are finite in the reference only."""
        return int(self.state["counts"][1])

    def checks(self, check: Callable[..., Check], *, dataset: bool = False) -> Iterator[Check]:
        """A check for each metric, made by ``check(metric, value, limit, relation, heads)``.

        Its value is that of the worst head, so that one lost head is not averaged away. On a
        ``dataset``, which may have any number of samples, a few may exceed the max abs error.
        """
        if self.empty:
            return
        rows, multi_head = int(self.state["counts"][0]), bool(self.state["multi_head"])
        error, row_sum, masked, entropy, worst = self.state["maxima"].T
        divergence, overlap, stability = (exact_sum.values(self.state["sums"]) / rows).T
        most, mean = self._limits.attention_max_abs, self._limits.attention_jsd
        exceeding, samples = self.state["exceeding"].T
        table: tuple[tuple[str, Array, float | None, str], ...] = (
            ("max_abs_error", error, WORST_FACTOR * most if dataset else most, "<="),
            (
                "exceeding_maps",
                exceeding / np.maximum(samples, 1),
                EXCEEDING_SHARE if dataset else None,
                "<=",
            ),
            ("jensen_shannon", divergence, mean, "<="),
            ("worst_jensen_shannon", worst, WORST_SAMPLE * mean, "<="),
            ("row_sum_error", row_sum, most, "<="),
            ("masked_mass", masked, most, "<="),
            ("entropy_shift", entropy, None, "<="),
            ("topk_overlap", overlap, None, ">="),
            ("argmax_stability", stability, None, ">="),
        )
        for name, values, limit, relation in table:
            worst_head = float(np.max(values) if relation == "<=" else np.min(values))
            heads = tuple(map(float, values)) if multi_head else ()
            yield check(name, worst_head, limit, relation, heads)


def _worst_sample(expected: Array, actual: Array) -> float:
    """The largest mean divergence of a sample's rows, in nats."""
    if not expected.size:
        return 0.0
    divergences = pairwise.row_divergences(expected, actual)
    return float(np.max(divergences.reshape(len(expected), -1).mean(-1)))
