"""Raw input as bytes: lines of text or of readings, ``.wav`` files and 16-bit PCM."""

from __future__ import annotations

import io
import itertools
import json
import re
import wave
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.frontend.description import FrontEnd
from edgeattn.frontend.windows import Window
from edgeattn.inference.decimal_rows import decimal_rows
from edgeattn.inference.stream import MALFORMED, MAX_LINE, line_blocks, malformed_line, numbered
from edgeattn.printable import counted
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Array, Specs

# Frames of sound that are read at once: of a file, and of a pipe, which waits for as many.
FILE_BLOCK, PIPE_BLOCK = 2**15, 1024
FULL_SCALE = np.float32(32768)
# Files whose lines are JSON; lines of others may be text that looks like JSON.
_JSON_FILES = (".jsonl", ".ndjson", ".json")
# Integers of 64 bits as Python writes them, whose text and value have the same hash.
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


def read_raw(
    source: io.BufferedReader,
    front_end: FrontEnd,
    inputs: Specs,
    *,
    pcm: bool = False,
    suffix: str = "",
) -> Iterator[Any]:
    """The raw values in ``source``, or the :class:`SampleError` of one that cannot be read.

    Text has one value per line: a text if the model takes text, otherwise numbers separated by
    commas or spaces, or JSON; an object by input name if the model has several inputs. With the
    ``suffix`` of a file of JSON, such as ``.jsonl``, each line is JSON: a value, or an object by
    input name, or with ``x`` for the only input. An empty field, ``nan`` or ``null`` is a missing
    number. Sound is a ``.wav`` file or, with ``pcm``, 16-bit little-endian values without a header.
    Consecutive readings may be rows of one array. Raises :class:`SampleError` for a ``.wav`` file
    of another rate or width, and for a ``suffix`` of a file that has no such lines.
    """
    blocks = read_raw_blocks(source, front_end, inputs, pcm=pcm, suffix=suffix)
    return itertools.chain.from_iterable(blocks)


def read_raw_blocks(
    source: io.BufferedReader,
    front_end: FrontEnd,
    inputs: Specs,
    *,
    pcm: bool = False,
    suffix: str = "",
) -> Iterator[list[Any]]:
    """As :func:`read_raw`: lists of the values that arrived together, at once."""
    if pcm:
        return ([block] for block in _blocks(source.read1, _channels(front_end)))
    if source.peek(4)[:4] == b"RIFF":
        return ([block] for block in _read_wav(source, front_end))
    return _read_lines(source, _line_parser(front_end, inputs, suffix.lower()))


@dataclass(frozen=True)
class _LineParser:
    """How a line becomes a value of the raw inputs ``names``.

    ``window`` is that of readings, which may be read together. Integers are read exactly, if the
    first step ``takes_integers``; what it ``hashes`` may be text, too.
    """

    names: tuple[str, ...]
    as_text: bool
    is_json: bool
    takes_integers: bool
    hashes: bool
    window: Window | None


def _line_parser(front_end: FrontEnd, inputs: Specs, suffix: str) -> _LineParser:
    inputs_of_model = [spec.name for spec in sample_inputs(inputs)]
    names = front_end.raw_names(inputs_of_model)
    as_text = len(names) == 1 and any(map(front_end.takes_text, inputs_of_model))
    if suffix in (".npz", ".npy"):
        raise SampleError(
            f"A {suffix} file has arrays instead of lines.",
            hint="Write the raw samples to a .jsonl file, one per line.",
        )
    if as_text and suffix in (".csv", ".tsv"):
        raise SampleError(
            f"A {suffix} file has columns, and the model takes one text per line.",
            hint="Write the texts to a .txt file, one per line, or to a .jsonl file as JSON.",
        )
    is_json = len(names) > 1 or suffix in _JSON_FILES
    takes_integers, hashes = (
        front_end.window is None and any(map(is_kind, inputs_of_model))
        for is_kind in (front_end.takes_integers, front_end.hashes)
    )
    return _LineParser(names, as_text, is_json, takes_integers, hashes, front_end.window)


def _read_lines(source: io.BufferedReader, parser: _LineParser) -> Iterator[list[Any]]:
    number = 1
    window = None if parser.as_text or parser.is_json else parser.window
    for lines in line_blocks(source):
        # The first line of a block may have arrived in parts.
        readings = None
        if window is not None and len(lines[0]) < MAX_LINE:
            readings = _readings(lines, window.columns)
        if readings is None:
            yield list(_values(numbered(lines, number), parser))
        else:
            yield [readings]
        number += len(lines)


def _readings(lines: list[bytes], columns: int | None) -> Array | None:
    """The readings that :func:`_numbers` returns for lines; None unless it takes all of them."""
    if columns is None:
        rows = decimal_rows(lines, 1)
        return None if rows is None else rows[:, 0]
    # A line of a single number is a value, not a row of one column.
    return None if columns == 1 else decimal_rows(lines, columns)


def _values(lines: Iterable[tuple[int, str | SampleError]], parser: _LineParser) -> Iterator[Any]:
    """The values of lines, or their errors."""
    for number, line in lines:
        if isinstance(line, SampleError):
            yield line
        elif not line.strip():
            yield malformed_line(number, "it is empty")
        elif parser.as_text and not parser.is_json:
            yield line
        else:
            line = line.strip()
            is_json = parser.is_json or line[0] in "[{"
            try:
                yield _of_json(json.loads(line), parser) if is_json else _of_fields(line, parser)
            except MALFORMED as error:
                # The names of columns may come first.
                if number > 1 or is_json or parser.hashes or _has_number(line):
                    yield malformed_line(number, error, _example(parser))


def _of_json(value: Any, parser: _LineParser) -> Any:
    if isinstance(value, dict):
        if parser.window is not None:
            raise ValueError("it is an object, and the model takes readings, which form windows")
        return value
    if len(parser.names) > 1:
        raise ValueError("it is not a JSON object of inputs by name")
    if parser.as_text or parser.takes_integers:
        return value
    return np.asarray(value, "float64")


def _of_fields(line: str, parser: _LineParser) -> Any:
    if parser.takes_integers:
        fields = [field.strip() for field in (line.split(",") if "," in line else line.split())]
        if all(map(_INTEGER.fullmatch, fields)):
            return np.asarray([int(field) for field in fields] if len(fields) > 1 else int(line))
        if parser.hashes:
            raise ValueError("it may be text or numbers")
    return _numbers(line)


def _example(parser: _LineParser) -> str | None:
    """What to write, if lines are objects or may be text or numbers."""
    if parser.hashes and len(parser.names) == 1:
        return 'Write each line as JSON: {"x": "word"} for text, {"x": 12} for a number.'
    if len(parser.names) == 1:
        return None
    values = ", ".join(f"{json.dumps(name)}: ..." for name in parser.names)
    return f"Write each line as a JSON object: {{{values}}}"


def _numbers(line: str) -> Any:
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


def read_sound(content: bytes, front_end: FrontEnd) -> Array:
    """All values of a ``.wav`` file, for a front end with windows of sound.

    Raises :class:`SampleError` as :func:`read_raw`, also if the model takes no sound.
    """
    if front_end.window is None or front_end.window.sampling_rate is None:
        raise SampleError(
            "The model takes no sound.", hint="Its front end has no window with a sampling_rate."
        )
    parts = list(_read_wav(io.BufferedReader(io.BytesIO(content)), front_end))
    if not parts:
        raise SampleError("The .wav file has no values.")
    return np.concatenate(parts)


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
                    f"The sound has {counted(file.getnchannels(), 'channel')}; the model takes "
                    f"{_channels(front_end)}.",
                    hint="Convert it, for example with: sox in.wav -c 1 out.wav",
                )
            if front_end.window is None:
                yield from _whole(file.readframes(file.getnframes()), file.getnchannels())
                return
            count = FILE_BLOCK if source.seekable() else PIPE_BLOCK
            while data := file.readframes(count):
                yield from _whole(data, file.getnchannels())
    except (wave.Error, EOFError, RuntimeError) as error:  # the last for sizes that do not fit
        reason = str(error) or "it ends early"
        raise SampleError(f"The .wav file cannot be read: {reason}.") from error


def _blocks(read: Any, channels: int) -> Iterator[Array]:
    """Blocks of 16-bit values as they arrive; a frame may arrive in parts."""
    size, rest = 2 * channels, b""
    while data := read(size * FILE_BLOCK):
        data = rest + data
        whole = len(data) // size * size
        rest = data[whole:]
        if whole:
            yield _samples(data[:whole], channels)
    yield from _whole(rest, channels)


def _whole(data: bytes, channels: int) -> Iterator[Array]:
    """The values of ``data``; :class:`SampleError` at their end if it has a part of one."""
    size = 2 * channels
    rest = len(data) % size
    if len(data) > rest:
        yield _samples(data[: len(data) - rest], channels)
    if rest:
        raise SampleError(f"The sound ends with {rest} of the {size} bytes of a value.")


def _samples(data: bytes, channels: int) -> Array:
    values = np.frombuffer(data, "<i2").astype("float32") / FULL_SCALE
    return values.reshape(-1, channels) if channels > 1 else values
