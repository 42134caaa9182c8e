"""Answers to raw input: sentences, readings or sound in, labels with scores out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from edgeattn.errors import ArtifactError, BundleError, EdgeattnError, SampleError
from edgeattn.frontend.answers import Answers
from edgeattn.frontend.description import FrontEnd
from edgeattn.frontend.empty_values import is_empty
from edgeattn.frontend.shared_frames import shared_frames
from edgeattn.frontend.values import as_numbers
from edgeattn.frontend.windows import WindowBuffer
from edgeattn.printable import enumerated
from edgeattn.samples.input_conversion import fit, infer_dtype
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Array, Specs, Tensors, TensorSpec

Json = dict[str, Any]
RunFunction = Callable[[Tensors], Tensors]


class RawModel:
    """A model with its front end; ``run`` computes outputs from inputs with ``batch`` rows or less.

    One object serves one stream: windows and smoothing connect consecutive calls.
    """

    def __init__(
        self,
        front_end: FrontEnd,
        inputs: Specs,
        attention: tuple[str, ...],
        run: RunFunction,
        *,
        batch: int = 1,
    ) -> None:
        self.front_end, self._run, self._batch = front_end, run, batch
        self._inputs = sample_inputs(inputs)
        if front_end.window is not None and len(self._inputs) != 1:
            raise BundleError("A front end with windows requires a model with one input.")
        self._buffer = None if front_end.window is None else WindowBuffer(front_end.window)
        self._shared = (
            None if front_end.window is None else shared_frames(front_end, self._inputs[0].name)
        )
        answer = front_end.answer
        self._answers = None if answer is None else Answers(answer, attention)
        # The values of the stream so far; readings count one by one.
        self.count = 0

    def answer(self, raw: Any) -> Json:
        """The answer to one raw sample: a text, numbers, or a mapping of these by input name.

        With windows, a sample has the readings of one window. Raises :class:`SampleError` if it
        does not fit, and :class:`ArtifactError` if the runtime fails.
        """
        return self._answer(self._run(self._prepare_for_answer(raw)))

    def answers(self, values: Iterable[Any]) -> Iterator[Json | EdgeattnError]:
        """The answers to a stream of raw samples or, with windows, of readings.

        An error of a value is returned in place of an answer, and the stream continues; windows and
        smoothing then start again. A :class:`SampleError` among the values is such an error.
        """
        return self.answers_to_blocks([value] for value in values)

    def answers_to_blocks(self, blocks: Iterable[list[Any]]) -> Iterator[Json | EdgeattnError]:
        """As :meth:`answers`, for lists of values that arrived together: they may share batches."""
        for block in blocks:
            group: list[Tensors] = []
            for sample in self._samples(block):
                if not isinstance(sample, SampleError):
                    group.append(sample)
                    if len(group) < self._batch:
                        continue
                yield from self._results(group)
                group = []
                if isinstance(sample, SampleError):
                    if self._answers is not None:
                        self._answers.restart()
                    yield sample
            yield from self._results(group)

    def _prepare_for_answer(self, raw: Any) -> Tensors:
        """As :meth:`prepare`; :class:`SampleError` if the sample is empty."""
        values = self._by_name(raw)
        steps = self.front_end.inputs
        if all(
            is_empty(values[spec.name], next(iter(steps.get(spec.name, ())), None))
            for spec in self._inputs
        ):
            names = enumerated([spec.name for spec in self._inputs])
            verb = "has" if len(self._inputs) == 1 else "have"
            raise SampleError(
                f"The sample is empty: {names} {verb} no word and no number.",
                hint="Leave empty samples out.",
            )
        return self.prepare(values)

    def prepare(self, raw: Any) -> Tensors:
        """The inputs of the model, with one row, for one raw sample."""
        values = self._by_name(raw)
        return {
            spec.name: self._fitted(self.front_end.prepare(spec.name, values[spec.name]), spec)
            for spec in self._inputs
        }

    def prepare_window(self, readings: Array, *, is_next: bool) -> Tensors:
        """As :meth:`prepare`, for the finite readings of a window of a stream.

        ``is_next`` is whether it starts a hop after the window of the last call.
        """
        assert self.front_end.window is not None
        (spec,) = self._inputs
        window = self.front_end.window.normalized(readings)
        if self._shared is None:
            value = self.front_end.apply(spec.name, window)
        else:
            value = self._shared.prepare(window, is_next=is_next)
        return {spec.name: self._fitted(value, spec)}

    def _by_name(self, raw: Any) -> Mapping[str, Any]:
        names = [spec.name for spec in self._inputs]
        if not isinstance(raw, Mapping):
            only = self.front_end.only_raw_name(names)
            if only is None:
                listed = ", ".join(self.front_end.raw_names(names))
                raise SampleError(f"The model has several inputs. Pass a mapping with: {listed}.")
            raw = {only: raw}
        values = self.front_end.by_input(raw, names)
        missing = [name for name in names if name not in values]
        if missing:
            raise SampleError(
                f"The sample has no input {missing[0]!r}.", hint=f"Its inputs: {', '.join(names)}."
            )
        return values

    def _fitted(self, value: Any, spec: TensorSpec) -> Array:
        array = np.asarray(value)
        if array.dtype.kind not in "buif":
            raise SampleError(f"Input {spec.name} takes numbers, and no step makes them from text.")
        # A single value may stand for a sample of one value.
        array = array.reshape(1, 1) if array.ndim == 0 and spec.shape[1:] == (1,) else array[None]
        if array.dtype.kind == "f":
            array = infer_dtype(array, np.dtype(spec.dtype), spec)
        return fit(array, spec)

    def _samples(self, values: Iterable[Any]) -> Iterator[Tensors | SampleError]:
        """The prepared samples in consecutive values of a stream, and errors at their places."""
        for value in values:
            if isinstance(value, SampleError):
                self.count += 1
                error = value
            else:
                try:
                    if self._buffer is None:
                        self.count += 1
                        yield self._prepare_for_answer(value)
                    else:
                        yield from self._windows(value, self._buffer)
                    continue
                except SampleError as raised:
                    error = _at(self.count, raised)
            if self._buffer is not None:
                self._buffer.restart()
            yield error

    def _windows(self, value: Any, buffer: WindowBuffer) -> Iterator[Tensors | SampleError]:
        assert self.front_end.window is not None
        try:
            readings = self.front_end.window.block(as_numbers(value))
        except SampleError:
            self.count += 1
            raise
        first = self.count
        self.count += len(readings)
        sample: Tensors | SampleError
        for end, window in buffer.extend(readings):
            try:
                if isinstance(window, SampleError):
                    sample = window
                else:
                    sample = self.prepare_window(window, is_next=buffer.consecutive > 1)
            except SampleError as error:
                sample = error
            yield _at(first + end, sample) if isinstance(sample, SampleError) else sample

    def _results(self, samples: list[Tensors]) -> Iterator[Json | EdgeattnError]:
        """The answers to samples, or the errors of the runtime at their places."""
        shared = self._run_together(samples)
        for row, sample in enumerate(samples):
            try:
                if shared is None:
                    yield self._answer(self._run(sample))
                else:
                    yield self._answer(shared, row)
            except (SampleError, ArtifactError) as error:
                yield error

    def _run_together(self, samples: list[Tensors]) -> Tensors | None:
        """The outputs for samples of one shape; None if that is not possible or fails."""
        if len(samples) < 2:
            return None
        rows = {name: [sample[name] for sample in samples] for name in samples[0]}
        if any(len({array.shape for array in arrays}) > 1 for arrays in rows.values()):
            return None
        try:
            return self._run({name: np.concatenate(arrays) for name, arrays in rows.items()})
        except (SampleError, ArtifactError):
            return None  # that of which sample shows when each is run alone

    def _answer(self, outputs: Tensors, row: int = 0) -> Json:
        sample = {name: array[row] for name, array in outputs.items()}
        if self._answers is None:
            return {name: array.tolist() for name, array in sample.items()}
        return self._answers(sample)


def _at(number: int, error: SampleError) -> SampleError:
    return SampleError(f"Value {number} of the stream: {error.message}", hint=error.hint)
