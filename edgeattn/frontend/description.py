"""``frontend.json``: a front end as a description, read strictly."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgeattn.errors import SampleError, UsageError
from edgeattn.frontend import lookup, numeric, spectra, spectrograms, text
from edgeattn.frontend.answers import Answer
from edgeattn.frontend.fields import Table, parse_table, table_of
from edgeattn.frontend.text_files import read_lines
from edgeattn.frontend.values import as_array, as_numbers
from edgeattn.frontend.windows import Window
from edgeattn.printable import counted
from edgeattn.tensors import Array

FRONTEND = "frontend.json"
VERSION = 1


class Step(Protocol):
    """A dataclass whose fields are the settings of a step."""

    def apply(self, value: Any) -> Array:
        """The output for one sample, without a batch axis.

        Raises :class:`SampleError` if the value does not fit.
        """
        ...


STEPS: Mapping[str, type[Any]] = {
    "normalization": numeric.Normalization,
    "rescaling": numeric.Rescaling,
    "clip": numeric.Clip,
    "discretization": numeric.Discretization,
    "category_encoding": numeric.CategoryEncoding,
    "pad_sequences": numeric.PadSequences,
    "transpose": numeric.Transpose,
    "expand_dims": numeric.ExpandDims,
    "string_lookup": lookup.StringLookup,
    "integer_lookup": lookup.IntegerLookup,
    "hashing": lookup.Hashing,
    "text_vectorization": text.TextVectorization,
    "stft": spectra.Stft,
    "signal_stft": spectra.SignalStft,
    "mel": spectra.Mel,
    "log": spectra.Log,
    "mfcc": spectra.Mfcc,
    "mel_spectrogram": spectrograms.MelSpectrogram,
    "stft_spectrogram": spectrograms.StftSpectrogram,
}
_NAMES = {cls: name for name, cls in STEPS.items()}
# Steps whose input is text. Hashing accepts it too.
_TEXT = (lookup.StringLookup, text.TextVectorization)


@dataclass(frozen=True)
class FrontEnd:
    """Steps by the name of the input, windows over a stream, and the form of the answer.

    ``stored_inputs`` has, by the name of an input, that of the input of the stored model ahead of
    removed layers, which raw samples may also have. The manifest stores it, not the description.
    """

    inputs: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
    window: Window | None = None
    answer: Answer | None = None
    stored_inputs: Mapping[str, str] = field(default_factory=dict)

    def by_input(self, values: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
        """``values`` by the inputs ``names``; those under names of stored inputs are renamed.

        So is ``x``, if one raw value makes all inputs.
        """
        stored, only = self.stored_inputs, self.only_raw_name(names)
        if only is not None and not {only, *names, *map(stored.get, names)} & values.keys():
            values = {only if name == "x" else name: value for name, value in values.items()}
        renamed = {
            name: values[stored[name]]
            for name in names
            if name not in values and stored.get(name) in values
        }
        if not renamed:
            return values
        used = {stored[name] for name in renamed} - set(names)
        return {**{name: value for name, value in values.items() if name not in used}, **renamed}

    def raw_names(self, names: Sequence[str]) -> tuple[str, ...]:
        """The names of the raw values that make the inputs ``names``.

        That of the input if there is one. Several removed layers may have one stored input.
        """
        if len(names) == 1:
            return tuple(names)
        return tuple(dict.fromkeys(self.stored_inputs.get(name, name) for name in names))

    def only_raw_name(self, names: Sequence[str]) -> str | None:
        """The name of the raw value that makes all of the inputs ``names``; None for several."""
        raw = self.raw_names(names)
        return raw[0] if len(raw) == 1 else None

    def prepare(self, name: str, value: Any) -> Any:
        """The value of the input ``name`` for one raw sample.

        Raises :class:`SampleError`, which names the input and the step.
        """
        if not self.takes_text(name):
            value = _finite(value)
        if self.window is not None:
            value = self._windowed(value)
        return self.apply(name, value)

    def apply(self, name: str, value: Any, start: int = 0, end: int | None = None) -> Any:
        """``value`` after the steps ``start`` to ``end`` of the input ``name``.

        It has no NaN and, with windows, is one of them. Raises as :meth:`prepare`.
        """
        # Results that are not finite are refused as inputs of the model.
        with np.errstate(all="ignore"):
            for number, step in enumerate(self.inputs.get(name, ())[start:end], start + 1):
                try:
                    value = step.apply(value)
                except SampleError as error:
                    position = f"Input {name}, step {number} ({_NAMES[type(step)]})"
                    raise SampleError(f"{position}: {error.message}", hint=error.hint) from error
        return value

    def _windowed(self, value: Any) -> Any:
        assert self.window is not None
        readings = self.window.block(as_numbers(value))
        if len(readings) != self.window.length:
            raise SampleError(
                f"A window has {counted(self.window.length, 'reading')}; received {len(readings)}."
            )
        return self.window.normalized(readings)

    def takes_text(self, name: str) -> bool:
        """Whether the raw values of the input ``name`` are text."""
        steps = self.inputs.get(name, ())
        return bool(steps) and isinstance(steps[0], _TEXT)

    def takes_integers(self, name: str) -> bool:
        """Whether the raw values of the input ``name`` may be integers of any size."""
        steps = self.inputs.get(name, ())
        return bool(steps) and isinstance(steps[0], lookup.IntegerLookup | lookup.Hashing)

    def hashes(self, name: str) -> bool:
        """Whether the raw values of the input ``name`` may be text or integers."""
        steps = self.inputs.get(name, ())
        return bool(steps) and isinstance(steps[0], lookup.Hashing)

    def to_json(self) -> dict[str, Any]:
        """The description. Values that are the defaults of a step are left out."""
        document: dict[str, Any] = {
            "version": VERSION,
            "inputs": {
                name: [{"step": _NAMES[type(step)], **table_of(step)} for step in steps]
                for name, steps in self.inputs.items()
            },
        }
        for name in ("window", "answer"):
            table = getattr(self, name)
            if table is not None:
                document[name] = table_of(table)
        return document

    def to_bytes(self) -> bytes:
        return (json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n").encode()


def _finite(value: Any) -> Any:
    """``value``; :class:`SampleError` if it has NaN, which a lookup would take as a number."""
    array = as_array(value)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise SampleError("The values are not all finite numbers.")
    return value


def from_bytes(content: bytes) -> FrontEnd:
    """The front end of a bundle; :class:`UsageError` if the description is malformed."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{FRONTEND} is not JSON: {error}") from error
    version = document.pop("version", None) if isinstance(document, dict) else None
    if type(version) is int and version > VERSION:
        raise UsageError(
            f"{FRONTEND} was made by a newer edgeattn: its version is {version}.",
            hint="Update edgeattn with: pip install --upgrade edgeattn",
        )
    if type(version) is not int or version != VERSION:
        raise UsageError(f"{FRONTEND} has the version {version!r} instead of {VERSION}.")
    return from_document(document, FRONTEND)


def from_toml(path: Path) -> FrontEnd:
    """The front end that a TOML file describes.

    Files that it names are relative to it. Raises :class:`UsageError`.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    return from_document(document, path.name, path.parent)


def from_document(document: Any, position: str, folder: Path | None = None) -> FrontEnd:
    """The front end of a parsed description; files may be named only if there is a ``folder``."""
    if not isinstance(document, Mapping):
        raise UsageError(f"{position} is not a table.")
    # The names of stored inputs are in the manifest.
    known = [item.name for item in dataclasses.fields(FrontEnd) if item.name != "stored_inputs"]
    for key in document:
        if key not in known:
            raise UsageError(
                f"{position}: unknown key {key!r}.",
                hint=f"Use only these keys: {', '.join(known)}.",
            )
    inputs = document.get("inputs", {})
    if not isinstance(inputs, Mapping):
        raise UsageError(f"{position}: inputs is not a table of lists of steps.")
    return FrontEnd(
        {
            name: _steps(steps, f"{position}: inputs.{name}", folder)
            for name, steps in inputs.items()
        },
        _optional(Window, "window", document, position),
        _optional(Answer, "answer", document, position),
    )


def _optional(
    cls: type[Table], name: str, document: Mapping[str, Any], position: str
) -> Table | None:
    if name not in document:
        return None
    return parse_table(cls, document[name], f"{position}: {name}")


def _steps(steps: Any, position: str, folder: Path | None) -> tuple[Step, ...]:
    if not isinstance(steps, list):
        raise UsageError(
            f"{position} is not a list of steps.", hint="Write each step as [[inputs.NAME]]."
        )
    return tuple(
        parse_step(step, f"{position}, step {number}", folder)
        for number, step in enumerate(steps, 1)
    )


def parse_step(table: Any, position: str, folder: Path | None = None) -> Step:
    """One step from its table. Raises :class:`UsageError`, which starts with ``position``."""
    if not isinstance(table, Mapping) or not isinstance(table.get("step"), str):
        raise UsageError(
            f"{position}: the key 'step' is missing.", hint=f"Choose one of {', '.join(STEPS)}."
        )
    settings = {key: value for key, value in table.items() if key != "step"}
    if table["step"] not in STEPS:
        raise UsageError(
            f"{position}: unknown step {table['step']!r}.",
            hint=f"Choose one of {', '.join(STEPS)}.",
        )
    if folder is not None and isinstance(settings.get("vocabulary"), str):
        settings["vocabulary"] = read_lines(folder / settings["vocabulary"])
        if table["step"] == "integer_lookup":
            settings["vocabulary"] = [_integer(line, position) for line in settings["vocabulary"]]
    step: Step = parse_table(STEPS[table["step"]], settings, position)
    return step


def _integer(line: str, position: str) -> int:
    try:
        return int(line)
    except ValueError as error:
        raise UsageError(f"{position}: {line!r} of the vocabulary is not an integer.") from error
