"""Long einsum equations, for which tf2onnx would build a graph for each order of their letters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tf2onnx.optimizer.einsum_optimizer import CachedEinsum

from edgeattn_converters.lowering.tf2onnx_fixes import bounded_einsum_search

EQUATIONS = {
    "bqd,bkd->bqk": 26,  # 4! orders, the order of the equation, and the result
    "bqhd,bkhd->bhqk": 122,
    "bqrhd,bsthd->bhqrst": 2,
    "bcqrhd,bcsthd->bchqrst": 2,
    "abcdefgh,ijkdefgh->abcijk": 2,
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_the_number_of_graphs_is_bounded(equation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    original = CachedEinsum.build_runtime

    def build(einsum: Any) -> None:
        nonlocal count
        count += 1
        original(einsum)

    monkeypatch.setattr(CachedEinsum, "build_runtime", build)
    with bounded_einsum_search():
        CachedEinsum.build_einsum(equation, 18, True, np.float32)
    assert count == EQUATIONS[equation]
