"""States of accumulators that are combined: the result does not depend on how data are divided."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from edgeattn.tensors import Array

State = dict[str, Array]
# How two arrays are combined: exact sums and counts are added, extremes compared.
Rule = Callable[[Array, Array], Array]


class Mergeable:
    """An accumulator whose ``state`` is combined with that of another one, by ``RULES``.

    All rules are associative and commutative, and exact.
    """

    RULES: ClassVar[Mapping[str, Rule]]
    state: State

    def merge(self, state: State) -> None:
        """Add what another accumulator has accumulated."""
        self.state = combined(self.RULES, self.state, state)


def combined(rules: Mapping[str, Rule], first: State, second: State) -> State:
    """Both states as one. An array that is missing or empty has accumulated nothing."""
    result = {}
    for name in {**first, **second}:
        one, other = first.get(name), second.get(name)
        if one is None or other is None or not one.size or not other.size:
            whole = one if other is None or not other.size else other
            assert whole is not None
            result[name] = np.array(whole)
        else:
            result[name] = np.asarray(rules[name](one, other))
    return result
