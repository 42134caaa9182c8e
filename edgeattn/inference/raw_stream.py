"""Raw input as bytes: lines of text or of readings, ``.wav`` files and 16-bit PCM."""

from __future__ import annotations

import io
import itertools
import json
import wave
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.frontend.description import FrontEnd
from edgeattn.inference.stream import MALFORMED, malformed_line, numbered_line_blocks
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Array, Specs

# Frames of sound that are read at once: of a file, and of a pipe, which waits for as many.
FILE_BLOCK, PIPE_BLOCK = 2**15, 1024
FULL_SCALE = np.float32(32768)
Lines = list[tuple[int, str | SampleError]]


def read_raw(
    source: io.BufferedReader, front_end: FrontEnd, inputs: Specs, *, pcm: bool = False
) -> Iterator[Any]:
    """The raw values in ``source``, or the :class:`SampleError` of one that cannot be read.

    Text has one value per line: a text if the model takes text, otherwise numbers separated by
    commas or spaces, or JSON; an object by input name if the model has several inputs. An empty
    field, ``nan`` or ``null`` is a missing number. Sound is a ``.wav`` file or, with ``pcm``,
    16-bit little-endian values without a header. Consecutive readings may be rows of one array.
    Raises :class:`SampleError` for a ``.wav`` file of another rate or width.
    """
    return itertools.chain.from_iterable(read_raw_blocks(source, front_end, inputs, pcm=pcm))


def read_raw_blocks(
    source: io.BufferedReader, front_end: FrontEnd, inputs: Specs, *, pcm: bool = False
) -> Iterator[list[Any]]:
    """As :func:`read_raw`: lists of the values that arrived together, at once."""
    if pcm:
        return ([block] for block in _blocks(source.read1, _channels(front_end)))
    if source.peek(4)[:4] == b"RIFF":
        return ([block] for block in _read_wav(source, front_end))
    names = [spec.name for spec in sample_inputs(inputs)]
    return (_values(lines, front_end, names) for lines in numbered_line_blocks(source))


def _values(lines: Lines, front_end: FrontEnd, names: list[str]) -> list[Any]:
    """The values of lines, or their errors."""
    as_text = len(names) == 1 and front_end.takes_text(names[0])
    if not as_text and len(names) == 1 and front_end.window is not None:
        readings = _readings([line for _, line in lines], front_end.window.columns)
        if readings is not None:
            return [readings]
    values: list[Any] = []
    for number, line in lines:
        if isinstance(line, SampleError):
            values.append(line)
        elif not line.strip():
            values.append(malformed_line(number, "it is empty"))
        elif as_text:
            values.append(line)
        else:
            try:
                values.append(_parse(line, len(names) > 1))
            except MALFORMED as error:
                # The names of columns may come first.
                if number > 1 or _has_number(line):
                    values.append(malformed_line(number, error))
    return values


def _readings(lines: list[str | SampleError], columns: int | None) -> Array | None:
    """The readings of lines that :func:`_parse` would return one by one, if it takes all of them.

    None if a line has another number of fields, or one that is not a number.
    """
    fields: list[str] = []
    for line in lines:
        if isinstance(line, SampleError):
            return None
        row = line.split(",") if "," in line else line.split()
        # A line of a single number is a value, not a row of one column.
        if len(row) != (columns or 1) or (columns == 1 and "," not in line):
            return None
        fields += row
    try:
        values = np.fromiter(map(float, fields), float, len(fields))
    except ValueError:
        return None
    return values if columns is None else values.reshape(-1, columns)


def _parse(line: str, several: bool) -> Any:
    line = line.strip()
    if several or line[0] in "[{":
        value = json.loads(line)
        if several and not isinstance(value, dict):
            raise ValueError("it is not a JSON object of inputs by name")
        return value if isinstance(value, dict) else np.asarray(value, "float64")
    fields = line.split(",") if "," in line else line.split()
    values = [float(field) if field.strip() else np.nan for field in fields]
    return np.asarray(values if len(values) > 1 or "," in line else values[0])


def _has_number(line: str) -> bool:
    for field in line.replace(",", " ").split():
        try:
            float(field)
        except ValueError:
            continue
        return True
    return False


def _channels(front_end: FrontEnd) -> int:
    return front_end.window.columns or 1 if front_end.window is not None else 1


def _read_wav(source: io.BufferedReader, front_end: FrontEnd) -> Iterator[Array]:
    try:
        with wave.open(source) as file:
            rate = None if front_end.window is None else front_end.window.sampling_rate
            if rate is not None and file.getframerate() != rate:
                raise SampleError(
                    f"The sound has {file.getframerate()} samples per second; the model takes "
                    f"{rate}.",
                    hint=f"Resample it, for example with: sox in.wav -r {rate} out.wav",
                )
            if file.getsampwidth() != 2:
                raise SampleError(
                    f"The sound has {8 * file.getsampwidth()} bits per value instead of 16.",
                    hint="Convert it, for example with: sox in.wav -b 16 out.wav",
                )
            if file.getnchannels() != _channels(front_end):
                raise SampleError(
                    f"The sound has {file.getnchannels()} channels; the model takes "
                    f"{_channels(front_end)}.",
                    hint="Convert it, for example with: sox in.wav -c 1 out.wav",
                )
            if front_end.window is None:
                yield _samples(file.readframes(file.getnframes()), file.getnchannels())
                return
            count = FILE_BLOCK if source.seekable() else PIPE_BLOCK
            while data := file.readframes(count):
                yield _samples(data, file.getnchannels())
    except (wave.Error, EOFError) as error:
        raise SampleError(f"The .wav file cannot be read: {error or 'it ends early'}.") from error


def _blocks(read: Any, channels: int) -> Iterator[Array]:
    """Blocks of 16-bit values as they arrive; a frame may arrive in parts."""
    size, rest = 2 * channels, b""
    while data := read(size * FILE_BLOCK):
        data = rest + data
        whole = len(data) // size * size
        rest = data[whole:]
        if whole:
            yield _samples(data[:whole], channels)
    if rest:
        raise SampleError(f"The sound ends with {len(rest)} of the {size} bytes of a value.")


def _samples(data: bytes, channels: int) -> Array:
    values = np.frombuffer(data, "<i2").astype("float32") / FULL_SCALE
    return values.reshape(-1, channels) if channels > 1 else values
