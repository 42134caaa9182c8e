"""A few of the random graphs of ``make graphs``."""

import pytest
import random_graphs


@pytest.mark.parametrize(("seed", "graphs"), [(0, 3), pytest.param(1, 13, marks=pytest.mark.long)])
def test_random_graphs_as_in_keras(seed: int, graphs: int) -> None:
    assert list(random_graphs.compare(seed, graphs=graphs)) == []
