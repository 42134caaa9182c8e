"""A Python function in the place of an artifact, for tests that need no runtime."""

from collections.abc import Callable, Sequence

import numpy as np

from edgeattn.errors import ArtifactError
from edgeattn.runners.batching import count_samples
from edgeattn.tensors import Tensors, TensorSpec


class FunctionRunner:
    """Runs ``function(tensors) -> tensors`` instead of an artifact, all samples in one call.

    Samples of the first call give the same results in batches of requested sizes, without another
    call of the function.
    """

    runtime = "function"

    def __init__(
        self,
        function: Callable[[Tensors], Tensors],
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._function = function
        self._rows: dict[bytes, int] = {}
        self._first: Tensors = {}

    def run(self, tensors: Tensors, batch_sizes: Sequence[int] = ()) -> Tensors:
        count = count_samples(tensors, self.inputs)
        samples = [self._bytes(tensors, row) for row in range(count)]
        if batch_sizes and all(sample in self._rows for sample in samples):
            rows = [self._rows[sample] for sample in samples]
            return {name: array[rows] for name, array in self._first.items()}
        outputs = self._outputs(tensors)
        if not self._rows:
            self._rows = {sample: row for row, sample in enumerate(samples)}
            self._first = outputs
        return outputs

    def _bytes(self, tensors: Tensors, row: int) -> bytes:
        return b"".join(np.asarray(tensors[spec.name])[row].tobytes() for spec in self.inputs)

    def _outputs(self, tensors: Tensors) -> Tensors:
        outputs = self._function(tensors)
        missing = [spec.name for spec in self.outputs if spec.name not in outputs]
        if missing:
            raise ArtifactError(f"The function returned no output {missing[0]!r}.")
        return {spec.name: np.asarray(outputs[spec.name]) for spec in self.outputs}

    def close(self) -> None:
        pass
