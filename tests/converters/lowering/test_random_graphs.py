"""A few of the random graphs of ``make graphs``."""

import pytest
import random_graphs


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_random_graphs_as_in_keras(seed: int) -> None:
    assert list(random_graphs.compare(seed, graphs=8)) == []
