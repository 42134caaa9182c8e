"""Attention: does every head look where it looked?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from edgeattn.metrics import pairwise as metrics
from edgeattn.metrics.limits import Check, Limits
from edgeattn.tensors import Array


def judge_map(
    check: Callable[..., Check], want: Array, got: Array, limits: Limits
) -> Iterator[Check]:
    """Maps ``(samples, [heads,] [queries,] keys)``, each head by itself: one may be lost."""
    axis = want.ndim == 4
    heads = [(want[:, h], got[:, h]) for h in range(want.shape[1])] if axis else [(want, got)]
    most = limits.attention_max_abs
    judged: tuple[tuple[str, Callable[[Array, Array], float], float | None, str], ...] = (
        ("max_abs_error", metrics.max_abs_error, most, "<="),
        ("jensen_shannon", metrics.jensen_shannon, limits.attention_jsd, "<="),
        ("row_sum_error", metrics.row_sum_error, most, "<="),
        ("masked_mass", metrics.masked_mass, most, "<="),
        ("entropy_shift", metrics.entropy_shift, None, "<="),
        ("topk_overlap", metrics.topk_overlap, None, ">="),
        ("argmax_stability", metrics.argmax_stability, None, ">="),
    )
    for name, metric, limit, better in judged:
        values = tuple(metric(*head) for head in heads)
        worst = float(np.max(values) if better == "<=" else np.min(values))
        yield check(name, worst, limit, better, heads=values if axis else ())
