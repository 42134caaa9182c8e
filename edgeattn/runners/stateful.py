"""A runner that passes the final states of each sequence to the next."""

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from edgeattn.errors import UsageError
from edgeattn.runners import Runner
from edgeattn.samples.states import sample_inputs, with_initial_states
from edgeattn.tensors import Array, Tensors


class StatefulRunner:
    """Runs sequences consecutively, each from the final states of the one before it.

    The first starts from zero states, or from those passed to ``run``. Raises :class:`UsageError`
    if the artifact has no states as inputs.
    """

    def __init__(self, runner: Runner) -> None:
        if len(sample_inputs(runner.inputs)) == len(runner.inputs):
            raise UsageError(
                "The artifact has no states to carry.",
                hint="Convert the model again with --states.",
            )
        self._runner = runner
        self.inputs, self.outputs, self.runtime = runner.inputs, runner.outputs, runner.runtime
        self._states: dict[str, Array] = {}
        self._lock = threading.Lock()

    def run(self, tensors: Tensors, batch_sizes: Sequence[int] = ()) -> Tensors:
        """As :meth:`edgeattn.runners.Runner.run`, one sample after the other."""
        with self._lock:
            return self._run(tensors)

    def _run(self, tensors: Tensors) -> Tensors:
        results: list[Mapping[str, Array]] = []
        for row in range(len(next(iter(tensors.values())))):
            sample = {name: array[row : row + 1] for name, array in tensors.items()}
            outputs = self._runner.run(with_initial_states(sample | self._states, self.inputs))
            self._states = {
                spec.name: outputs[spec.state] for spec in self.inputs if spec.state is not None
            }
            results.append(outputs)
        return {
            spec.name: np.concatenate([outputs[spec.name] for outputs in results])
            for spec in self.outputs
        }

    def close(self) -> None:
        self._runner.close()
