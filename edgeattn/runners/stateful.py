"""A runner that carries the states of one sequence over to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgeattn.errors import UsageError
from edgeattn.tensors import Array, Tensors

if TYPE_CHECKING:
    from edgeattn.runners import Runner
from edgeattn.samples.states import sample_inputs, with_initial_states


class StatefulRunner:
    """A runner whose sequences go on, each where the one before it ended.

    The first starts clean, or from the states that ``run`` is given. Raises :class:`UsageError`
    where the artifact has none.
    """

    def __init__(self, runner: Runner) -> None:
        if len(sample_inputs(runner.inputs)) == len(runner.inputs):
            raise UsageError(
                "There are no states to carry: every sequence starts clean in this artifact.",
                hint="Make one that has them: edgeattn convert MODEL --states",
            )
        self._runner = runner
        self.inputs, self.outputs, self.runtime = runner.inputs, runner.outputs, runner.runtime
        self._states: dict[str, Array] = {}

    def run(self, tensors: Tensors) -> Tensors:
        """As :meth:`edgeattn.runners.Runner.run`, a row after the other."""
        told: list[Mapping[str, Array]] = []
        for row in range(len(next(iter(tensors.values())))):
            sample = {name: array[row : row + 1] for name, array in tensors.items()}
            answers = self._runner.run(with_initial_states(sample | self._states, self.inputs))
            self._states = {
                spec.name: answers[spec.state] for spec in self.inputs if spec.state is not None
            }
            told.append(answers)
        return {spec.name: np.concatenate([a[spec.name] for a in told]) for spec in self.outputs}

    def close(self) -> None:
        self._runner.close()
