"""A model of a bundle as a function of one sample."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import BundleError, EdgeattnError, SampleError
from edgeattn.inference.session import Session
from edgeattn.printable import printable
from edgeattn.runners.batching import missing_input
from edgeattn.samples.finite import invalid_input, invalid_output, is_invalid
from edgeattn.tensors import Array, Specs, Tensors, TensorSpec

if TYPE_CHECKING:
    from edgeattn.frontend.description import FrontEnd
    from edgeattn.inference.raw import RawModel

# isinstance is faster for dict than for the abstract Mapping.
_MAPPINGS = (dict, Mapping)


class Model:
    """An artifact as a function of one sample, with real numbers as inputs and outputs.

    Threads may share it. Carried states belong to the model, not to a thread. ``any_length`` is the
    label of another artifact of the bundle, which accepts samples of any length.
    """

    any_length: str | None = None

    def __init__(
        self,
        artifact: Artifact,
        session: Session,
        *,
        carry_states: bool = False,
        allow_non_finite: bool = False,
        front_end: FrontEnd | None = None,
        any_length: str | None = None,
    ) -> None:
        self.artifact = artifact
        self.any_length = any_length
        self.front_end = front_end
        self.runtime: str = session.runtime
        self.inputs: Specs = artifact.inputs
        self.outputs: Specs = artifact.outputs
        self._invoke = session.invoke
        writers = tuple(
            _InputWriter(spec, feed, allow_non_finite=allow_non_finite, any_length=any_length)
            for spec, feed in zip(self.inputs, session.feeds, strict=True)
        )
        self._writers = tuple(writer for writer in writers if writer.spec.state is None)
        self._only_writer = self._writers[0] if len(self._writers) == 1 else None
        readers = tuple(map(_OutputReader, self.outputs, session.fetches))
        # Outputs without a scale need no conversion.
        self._quantized = tuple(reader for reader in readers if reader.spec.quantized)
        self._checks = tuple(
            (reader.spec, _FiniteCheck(fetch))
            for reader, fetch in zip(readers, session.fetches, strict=True)
            if fetch.dtype.kind == "f" and not allow_non_finite
        )
        self._results: Tensors = {reader.spec.name: reader.real for reader in readers}
        self._states = tuple(
            _State(writer, self._results[writer.spec.state])
            for writer in writers
            if writer.spec.state is not None
        )
        self._carry = carry_states
        self._at_start = True
        # The runtime's inputs and outputs are one set of arrays, for all threads.
        self._lock = threading.Lock()
        self._thread = threading.local()

    def __repr__(self) -> str:
        file = f"{printable(self.artifact.path)} ({self.artifact.label})"
        return f"<Model {file} in {printable(self.runtime)}>"

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs, with those of states."""
        return tuple(spec.name for spec in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs; attention maps are named ``attention/LAYER``."""
        return tuple(spec.name for spec in self.outputs)

    def predict(self, samples: Array | Mapping[str, Array]) -> Tensors:
        """The outputs by name for a batch of samples, as new arrays.

        ``samples`` is an array with the sample axis first, or a mapping of such arrays by input
        name. The samples run one after the other; with ``carry_states`` each starts from the
        final states of the one before. Raises :class:`SampleError` if there is no sample or the
        inputs have different numbers of them, and as calls do.
        """
        from edgeattn.inference.batch import predict

        return predict(self, samples)

    def predict_in_place(self, sample: Array | Mapping[str, Array]) -> Tensors:
        """As a call: the outputs for one sample, in arrays that the next call overwrites."""
        return self(sample)

    def __call__(self, sample: Array | Mapping[str, Array]) -> Tensors:
        """The outputs by name for one sample.

        ``sample`` is an array in the shape of the model's input, with or without a batch axis of
        1, or a mapping of such arrays by input name if the model has several inputs. A state that
        is not in the mapping is zero or, with ``carry_states``, the final state of the last call
        that succeeded. Every call in a thread returns the same arrays. Raises :class:`SampleError`
        if an input is missing, has another shape or is not finite, and :class:`ArtifactError` if
        the runtime fails or an output is not finite.
        """
        with self._lock:
            if self._states:
                self._write_states(sample)
            self._write(sample)
            self._invoke()
            for spec, is_finite in self._checks:
                if not is_finite():
                    raise invalid_output(spec)
            for reader in self._quantized:
                reader.read()
            if self._carry:
                for state in self._states:
                    state.carried[...] = state.final
                self._at_start = False
            outputs: Tensors
            copies: list[tuple[Array, Array]]
            try:
                outputs, copies = self._thread.outputs
            except AttributeError:
                outputs, copies = self._allocate()
            for target, result in copies:
                target[...] = result
            return outputs

    def _allocate(self) -> tuple[Tensors, list[tuple[Array, Array]]]:
        """The arrays that calls in this thread return, and with each its source."""
        outputs = {name: np.empty_like(result) for name, result in self._results.items()}
        copies = [(outputs[name], result) for name, result in self._results.items()]
        self._thread.outputs = outputs, copies
        return outputs, copies

    def _write(self, sample: Array | Mapping[str, Array]) -> None:
        # The most frequent case first: recognizing a mapping that is not a dict takes longer than
        # copying a small array.
        if self._only_writer is not None and isinstance(sample, np.ndarray):
            self._only_writer.write(sample)
        elif isinstance(sample, _MAPPINGS):
            for writer in self._writers:
                if writer.name not in sample:
                    raise missing_input(writer.spec, sample)
                writer.write(sample[writer.name])
        elif self._only_writer is not None:
            self._only_writer.write(sample)
        else:
            names = ", ".join(writer.spec.name for writer in self._writers)
            raise SampleError(f"The model has several inputs. Pass a mapping with: {names}.")

    def _write_states(self, sample: Array | Mapping[str, Array]) -> None:
        for state in self._states:
            if isinstance(sample, Mapping) and state.writer.name in sample:
                state.writer.write(sample[state.writer.name])
            elif self._carry and not self._at_start:
                state.writer.write(state.carried)
            else:
                state.writer.clear()

    def answer(self, raw: Any) -> dict[str, Any]:
        """The answer to one raw sample, such as ``{"label": "walking", "score": 0.93}``.

        ``raw`` is a text, the readings of one window, or other numbers, as the front end of the
        bundle takes it; a mapping of these by input name if there are several inputs. Raises
        :class:`BundleError` if the bundle has no front end, and as calls do.
        """
        return self._raw_model().answer(raw)

    def answers(self, values: Iterable[Any]) -> Iterator[dict[str, Any] | EdgeattnError]:
        """The answers to a stream of raw samples or, with windows, of readings, as they are known.

        A reading is a number or a row of numbers; an array of several is accepted too. A value that
        does not fit gives its error in place of an answer, and the stream continues.
        """
        return self._raw_model().answers(values)

    def _raw_model(self) -> RawModel:
        from edgeattn.inference.raw import RawModel

        if self.front_end is None:
            raise BundleError(
                "The bundle has no front end, which describes raw input and answers.",
                hint="Convert the model again, with --preprocess FILE.toml or --labels FILE.",
            )
        return RawModel(self.front_end, self.inputs, self.artifact.attention, self)

    def reset(self) -> None:
        """Start a new sequence with the next call. Needed only with ``carry_states``."""
        with self._lock:
            self._at_start = True


class _FiniteCheck:
    """Whether an array has no NaN and no infinity, without allocating arrays."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self._finite = np.empty(array.shape, bool)

    def __call__(self) -> bool:
        np.isfinite(self._array, out=self._finite)
        # Faster than numpy.all for small arrays.
        return bool(np.count_nonzero(self._finite) == self._finite.size)


class _InputWriter:
    """Copies a sample to the runtime's input array, quantized if needed."""

    def __init__(
        self, spec: TensorSpec, feed: Array, *, allow_non_finite: bool, any_length: str | None
    ) -> None:
        self.spec = spec
        self._any_length = any_length
        self.name = spec.name
        self._quantized = spec.quantized
        self._feed = feed
        self._sample = feed[0]
        self._shapes = (feed.shape, feed.shape[1:]) if len(feed) == 1 else (feed.shape,)
        floats = feed.dtype.kind == "f"
        self._casting: Literal["same_kind", "safe"] = "same_kind" if floats else "safe"
        self._scale = spec.scale or 1.0
        if spec.quantized:
            self._real = np.zeros(feed.shape)
            self._limits = np.iinfo(feed.dtype)
        self._allow_non_finite = allow_non_finite
        self._is_finite = _FiniteCheck(self._real if spec.quantized else feed)
        self._check = floats and not allow_non_finite

    def write(self, sample: Array) -> None:
        if not isinstance(sample, np.ndarray):
            sample = np.asarray(sample)
        if sample.shape not in self._shapes:
            raise SampleError(
                f"Input {self.spec.name}: expected one sample of shape {self._shapes[-1]}, "
                f"received {sample.shape}.",
                hint=None
                if self._any_length is None
                else f"Load an artifact for sequences of any length: {self._any_length}.",
            )
        if self._quantized:
            self._quantize(sample)
            return
        target = self._feed if sample.ndim == self._feed.ndim else self._sample
        if sample.dtype == target.dtype:
            target[...] = sample
        elif np.can_cast(sample.dtype, target.dtype, self._casting):
            with np.errstate(over="ignore"):
                np.copyto(target, sample, casting=self._casting)
        else:
            self._copy_exactly(target, sample)
        if self._check and not self._is_finite():
            raise invalid_input(self.spec, allow_non_finite=False)

    def clear(self) -> None:
        """Write real zeros."""
        self._feed[...] = (self.spec.zero_point or 0) if self.spec.quantized else 0

    def _copy_exactly(self, target: Array, sample: Array) -> None:
        """Copy integers of another dtype, such as token numbers in int64."""
        with np.errstate(invalid="ignore"):
            converted = sample.astype(target.dtype)
        if not np.array_equal(converted, sample):
            raise SampleError(
                f"Input {self.spec.name}: the {sample.dtype} values cannot be represented in "
                f"{target.dtype}."
            )
        np.copyto(target, converted)

    def _quantize(self, sample: Array) -> None:
        """As :func:`edgeattn.tensors.quantize`, without allocating arrays."""
        real = self._real
        np.divide(sample, self._scale, out=real)
        if not self._is_finite() and is_invalid(
            real, self.spec, allow_non_finite=self._allow_non_finite
        ):
            raise invalid_input(self.spec, allow_non_finite=self._allow_non_finite)
        np.rint(real, out=real)
        np.add(real, self.spec.zero_point or 0, out=real)
        np.clip(real, self._limits.min, self._limits.max, out=real)
        np.copyto(self._feed, real, casting="unsafe")


class _OutputReader:
    """Converts the runtime's output array to real numbers."""

    def __init__(self, spec: TensorSpec, fetch: Array) -> None:
        self.spec = spec
        self._fetch = fetch
        self.real = np.zeros(fetch.shape, np.float32) if spec.quantized else fetch
        self._float64 = np.zeros(fetch.shape) if spec.quantized else fetch
        self._scale = spec.scale or 1.0

    def read(self) -> None:
        """As :func:`edgeattn.tensors.dequantize`, without allocating arrays."""
        np.copyto(self._float64, self._fetch)
        np.subtract(self._float64, self.spec.zero_point or 0, out=self._float64)
        np.multiply(self._float64, self._scale, out=self._float64)
        np.copyto(self.real, self._float64, casting="same_kind")


class _State:
    """A state as an input, with the output ``final`` and a copy of it for the next call."""

    def __init__(self, writer: _InputWriter, final: Array) -> None:
        self.writer = writer
        self.final = final
        # A call that fails may overwrite the output.
        self.carried = np.zeros_like(final)
