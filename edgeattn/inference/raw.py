"""Answers to raw input: sentences, readings or sound in, labels with scores out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from edgeattn.errors import ArtifactError, BundleError, EdgeattnError, SampleError
from edgeattn.frontend.answers import Answers
from edgeattn.frontend.description import FrontEnd
from edgeattn.frontend.values import as_numbers
from edgeattn.frontend.windows import WindowBuffer
from edgeattn.samples.input_conversion import fit, infer_dtype
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Array, Specs, Tensors, TensorSpec

Json = dict[str, Any]
RunFunction = Callable[[Tensors], Tensors]


class RawModel:
    """A model with its front end; ``run`` computes outputs from inputs, both with one row.

    One object serves one stream: windows and smoothing connect consecutive calls.
    """

    def __init__(
        self, front_end: FrontEnd, inputs: Specs, attention: tuple[str, ...], run: RunFunction
    ) -> None:
        self.front_end, self._run = front_end, run
        self._inputs = sample_inputs(inputs)
        if front_end.window is not None and len(self._inputs) != 1:
            raise BundleError("A front end with windows requires a model with one input.")
        self._buffer = None if front_end.window is None else WindowBuffer(front_end.window)
        answer = front_end.answer
        self._answers = None if answer is None else Answers(answer, attention)

    def answer(self, raw: Any) -> Json:
        """The answer to one raw sample: a text, numbers, or a mapping of these by input name.

        With windows, a sample has the readings of one window. Raises :class:`SampleError` if it
        does not fit, and :class:`ArtifactError` if the runtime fails.
        """
        return self._outputs(self.prepare(raw))

    def answers(self, values: Iterable[Any]) -> Iterator[Json | EdgeattnError]:
        """The answers to a stream of raw samples or, with windows, of readings.

        An error of a value is returned in place of an answer, and the stream continues; windows and
        smoothing then start again. A :class:`SampleError` among the values is such an error.
        """
        samples: Iterable[Tensors | SampleError]
        for number, value in enumerate(values, 1):
            if isinstance(value, SampleError):
                self._restart()
                yield value
                continue
            try:
                samples = [self.prepare(value)] if self._buffer is None else self._windows(value)
                for sample in samples:
                    result = self._attempt(sample)
                    yield _at(number, result) if isinstance(result, SampleError) else result
            except SampleError as error:
                self._restart()
                yield _at(number, error)

    def prepare(self, raw: Any) -> Tensors:
        """The inputs of the model, with one row, for one raw sample."""
        if not isinstance(raw, Mapping):
            if len(self._inputs) != 1:
                names = ", ".join(spec.name for spec in self._inputs)
                raise SampleError(f"The model has several inputs. Pass a mapping with: {names}.")
            raw = {self._inputs[0].name: raw}
        missing = [spec.name for spec in self._inputs if spec.name not in raw]
        if missing:
            raise SampleError(f"The sample has no input {missing[0]!r}.")
        return {
            spec.name: self._fitted(self.front_end.prepare(spec.name, raw[spec.name]), spec)
            for spec in self._inputs
        }

    def _fitted(self, value: Any, spec: TensorSpec) -> Array:
        array = np.asarray(value)
        if array.dtype.kind not in "buif":
            raise SampleError(f"Input {spec.name} takes numbers, and no step makes them from text.")
        # A single value may stand for a sample of one value.
        array = array.reshape(1, 1) if array.ndim == 0 and spec.shape[1:] == (1,) else array[None]
        if array.dtype.kind == "f":
            array = infer_dtype(array, np.dtype(spec.dtype), spec)
        return fit(array, spec)

    def _windows(self, value: Any) -> Iterator[Tensors | SampleError]:
        assert self._buffer is not None
        assert self.front_end.window is not None
        for window in self._buffer.extend(self.front_end.window.block(as_numbers(value))):
            try:
                yield window if isinstance(window, SampleError) else self.prepare(window)
            except SampleError as error:
                yield error

    def _attempt(self, sample: Tensors | SampleError) -> Json | EdgeattnError:
        if isinstance(sample, SampleError):
            if self._answers is not None:
                self._answers.restart()
            return sample
        try:
            return self._outputs(sample)
        except (SampleError, ArtifactError) as error:
            return error

    def _outputs(self, inputs: Tensors) -> Json:
        outputs = {name: array[0] for name, array in self._run(inputs).items()}
        if self._answers is None:
            return {name: array.tolist() for name, array in outputs.items()}
        return self._answers(outputs)

    def _restart(self) -> None:
        if self._buffer is not None:
            self._buffer.restart()
        if self._answers is not None:
            self._answers.restart()


def _at(number: int, error: SampleError) -> SampleError:
    return SampleError(f"Value {number} of the stream: {error.message}", hint=error.hint)
