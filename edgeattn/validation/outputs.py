"""Numbers: are the main outputs Keras'?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from edgeattn.metrics import pairwise as metrics
from edgeattn.metrics.limits import Check, Limits
from edgeattn.metrics.pairwise import TOP, is_distribution
from edgeattn.tensors import Array


def judge_numbers(
    check: Callable[..., Check], want: Array, got: Array, limits: Limits, ordinary: int | None
) -> Iterator[Check]:
    yield check("max_abs_error", metrics.max_abs_error(want, got))
    yield check("mean_abs_error", metrics.mean_abs_error(want, got))
    yield check("cosine", metrics.cosine(want, got))
    yield check("minimal_atol", metrics.minimal_atol(want, got, rtol=limits.rtol))
    ratio = metrics.tolerance_ratio(want, got, atol=limits.atol, rtol=limits.rtol)
    # Extremes would drown the noise of the samples: each part must be clean by itself.
    parts = [slice(0, ordinary)]
    if ordinary is not None and len(want) > ordinary:
        parts.append(slice(ordinary, None))
    snr = float(np.min([metrics.snr_db(want[part], got[part]) for part in parts]))
    if ratio <= 1 or math.isinf(limits.snr_db):
        yield check("tolerance_ratio", ratio, 1.0)
        yield check("snr_db", snr, None, ">=")
    else:
        yield check("tolerance_ratio", ratio)
        yield check("snr_db", snr, limits.snr_db, ">=")
    if is_distribution(want):
        agreed = metrics.top1_agreement(want, got, near_tie=limits.near_tie)
        yield check("top1_agreement", agreed, limits.top1_agreement, ">=")
        if want.shape[-1] > TOP:
            several = metrics.topk_agreement(want, got, k=TOP, near_tie=limits.near_tie)
            yield check(f"top{TOP}_agreement", several, None, ">=")
