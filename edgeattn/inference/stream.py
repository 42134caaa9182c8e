"""A stream of samples: text or consecutive ``.npy`` arrays of one or more samples each.

Text has one sample per line: numbers separated by commas or spaces, a JSON array, or a JSON object
of arrays by input name.
"""

import io
import json
import math
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from typing import IO, Any, cast

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.inference import exact_integers
from edgeattn.samples.arrays import NPY_MAGIC
from edgeattn.samples.finite import invalid_input, is_invalid
from edgeattn.samples.input_conversion import MAX_EXACT
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Array, Specs, Tensors, TensorSpec

MAX_LINE = 64 * 2**20  # bytes
BLOCK = 2**18  # bytes that are read at once, if that many have arrived
# Exceptions that parsing a malformed line can raise.
MALFORMED = (ValueError, TypeError, RecursionError, OverflowError, MemoryError)


def read_stream(
    source: io.BufferedReader, inputs: Specs, *, allow_non_finite: bool = False
) -> Iterator[Tensors | SampleError]:
    """The samples of a stream, each with a batch axis of 1, or the error of one that does not fit.

    The error names the line or array. The stream continues after it, unless a malformed ``.npy``
    array hides where the next one starts.
    """
    if source.peek(len(NPY_MAGIC))[: len(NPY_MAGIC)] == NPY_MAGIC:
        yield from _read_arrays(source, sample_inputs(inputs), allow_non_finite)
    else:
        yield from _read_lines(source, inputs, allow_non_finite)


class _Pipe:
    """Hides that ``source`` is a file: NumPy would query its position, which pipes do not have."""

    def __init__(self, source: IO[bytes]) -> None:
        self.read = source.read


def _read_arrays(
    source: io.BufferedReader, inputs: Specs, allow_non_finite: bool
) -> Iterator[Tensors | SampleError]:
    if len(inputs) != 1:
        raise SampleError(
            "A stream of .npy arrays requires a model with one input.",
            hint='Send lines of JSON: {"INPUT": [...], ...}',
        )
    spec, number = inputs[0], 0
    while source.peek(1):
        number += 1
        try:
            array: Array = np.lib.format.read_array(
                cast(IO[bytes], _Pipe(source)), allow_pickle=False
            )
        except Exception as error:  # numpy and tokenize have their own exceptions
            # The position of the next array is unknown.
            yield SampleError(f"Array {number} of the stream cannot be read: {error}")
            return
        has_sample_axis = array.ndim == len(spec.shape)
        for sample in array if has_sample_axis else [array]:
            try:
                fitted = _fit(sample, spec, f"Array {number}", allow_non_finite)
            except SampleError as error:
                yield error
            else:
                yield {spec.name: fitted}


def _read_lines(
    source: io.BufferedReader, inputs: Specs, allow_non_finite: bool
) -> Iterator[Tensors | SampleError]:
    for number, text in numbered_lines(source):
        if isinstance(text, SampleError):
            yield text
            continue
        try:
            yield _parse(text.strip(), inputs, f"Line {number}", allow_non_finite)
        except SampleError as error:
            yield error
        except MALFORMED as error:
            yield malformed_line(number, error)


def numbered_lines(source: io.BufferedReader) -> Iterator[tuple[int, str | SampleError]]:
    """The lines of a stream of text by their numbers, or the error of one that is not text."""
    number = 1
    for block in line_blocks(source):
        yield from numbered(block, number)
        number += len(block)


def numbered(lines: Sequence[bytes], first: int) -> Iterator[tuple[int, str | SampleError]]:
    """As :func:`numbered_lines`, for the bytes of consecutive lines from the number ``first``."""
    for number, line in enumerate(lines, first):
        if number == 1:
            # Spreadsheets and editors write a byte order mark.
            line = line.removeprefix(BOM_UTF8)
        try:
            yield number, _decoded(line)
        except ValueError as error:
            yield number, malformed_line(number, error)


def _decoded(line: bytes) -> str:
    if len(line) >= MAX_LINE:
        raise ValueError(f"it is longer than {MAX_LINE} bytes")
    return line.decode().rstrip("\r\n")


def line_blocks(source: io.BufferedReader) -> Iterator[list[bytes]]:
    """Lines that arrived together, without their ends.

    Of a line that is too long, the first ``MAX_LINE`` bytes.
    """
    parts: list[bytes] = []  # of the line that is not complete
    size = 0
    while data := source.read1(BLOCK):
        *lines, rest = data.split(b"\n")
        if lines:
            parts.append(lines[0])
            lines[0] = b"".join(parts)[:MAX_LINE]
            parts, size = [], 0
            yield lines
        # The rest of a line that is too long is read and not stored.
        if rest and size < MAX_LINE:
            parts.append(rest[: MAX_LINE - size])
        size += len(rest)
    if size:
        yield [b"".join(parts)]


def malformed_line(number: int, reason: object, hint: str | None = None) -> SampleError:
    return SampleError(f"Line {number} of the stream cannot be read: {reason}", hint=hint)


def _parse(text: str, inputs: Specs, position: str, allow_non_finite: bool) -> Tensors:
    required = sample_inputs(inputs)
    values: Any
    if not text:
        raise ValueError("it is empty")
    exact = any(map(_takes_integers, required))
    if text[0] in "[{":
        values = exact_integers.of_json(text) if exact else json.loads(text)
    elif exact:
        values = exact_integers.of_fields(text)
    else:
        values = [float(number) for number in text.replace(",", " ").split()]
    if not isinstance(values, dict):
        if len(required) != 1:
            names = ", ".join(spec.name for spec in required)
            raise SampleError(
                f"{position} of the stream: the model has several inputs.",
                hint=f"Send JSON objects with: {names}.",
            )
        values = {required[0].name: values}
    missing = [spec.name for spec in required if spec.name not in values]
    if missing:
        raise SampleError(f"{position} of the stream has no input {missing[0]!r}.")
    return {
        spec.name: _fit(_array(values[spec.name], spec), spec, position, allow_non_finite)
        for spec in inputs
        if spec.name in values
    }


def _array(values: Any, spec: TensorSpec) -> Array:
    array = np.asarray(values)
    if not _takes_integers(spec):
        return array
    found = exact_integers.integers(values, spec.dtype)
    if found is None and array.dtype.kind == "O":  # integers beyond 64 bits, or no numbers
        return array.astype(np.float64)
    return array if found is None else found


def _takes_integers(spec: TensorSpec) -> bool:
    return np.dtype(spec.dtype).kind in "iu" and not spec.quantized


def _fit(array: Array, spec: TensorSpec, position: str, allow_non_finite: bool) -> Array:
    """One sample of ``spec``, which may be flat, in its shape and dtype with a batch axis of 1."""
    shape = spec.shape[1:]
    fits = array.ndim == len(shape) and all(
        expected in (None, length) for expected, length in zip(shape, array.shape, strict=True)
    )
    fixed = [axis for axis in shape if axis is not None]
    if not fits and array.ndim == 1 and len(fixed) == len(shape):
        fits = array.size == math.prod(fixed)
        array = array.reshape(fixed) if fits else array
    elif not fits and array.ndim == 1 and len(fixed) == len(shape) - 1:
        # A sequence of any length.
        fits = array.size > 0 and array.size % math.prod(fixed) == 0
        array = array.reshape([-1 if a is None else a for a in shape]) if fits else array
    if not fits:
        expected_shape = ", ".join("?" if axis is None else str(axis) for axis in shape)
        raise SampleError(
            f"{position} of the stream has the shape {array.shape}. Input {spec.name} takes one "
            f"sample of shape ({expected_shape})."
        )
    if array.dtype.kind not in "buif":
        raise SampleError(f"{position} of the stream contains values that are not numbers.")
    if _takes_integers(spec):
        with np.errstate(invalid="ignore"):
            integers = array.astype(spec.dtype)
        # What a conversion beyond the range gives depends on the processor.
        is_exact = array.dtype.kind != "f" or (np.abs(array) <= MAX_EXACT).all()
        if not is_exact or not np.array_equal(integers, array):
            raise SampleError(
                f"{position} of the stream: input {spec.name} takes {spec.dtype} values."
            )
        return integers[None]
    with np.errstate(over="ignore"):
        converted = array.astype("float32" if spec.quantized else spec.dtype)
    if is_invalid(converted, spec, allow_non_finite=allow_non_finite):
        raise invalid_input(spec, f"{position}: ", allow_non_finite=allow_non_finite)
    return converted[None]
