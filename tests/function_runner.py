"""A Python function in the place of an artifact, for tests that need no runtime."""

from collections.abc import Callable, Sequence

import numpy as np

from edgeattn.errors import ArtifactError
from edgeattn.runners.batching import count_samples
from edgeattn.tensors import Tensors, TensorSpec


class FunctionRunner:
    """Runs ``function(tensors) -> tensors`` instead of an artifact, all samples in one call."""

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

    def run(self, tensors: Tensors, batch_sizes: Sequence[int] = ()) -> Tensors:
        count_samples(tensors, self.inputs)
        outputs = self._function(tensors)
        missing = [spec.name for spec in self.outputs if spec.name not in outputs]
        if missing:
            raise ArtifactError(f"The function returned no output {missing[0]!r}.")
        return {spec.name: np.asarray(outputs[spec.name]) for spec in self.outputs}

    def close(self) -> None:
        pass
