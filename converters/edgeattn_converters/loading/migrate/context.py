"""What the repairs may know besides the config, and how they say what they did."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Context:
    """Facts for the repairs of one file.

    Attributes:
        era: 1, 2 or 3: the Keras that wrote the file.
        version: its version as numbers, ``(2, 1, 4)``; empty when the file does not say.
        accepted: the argument names that a layer class of Keras 3 takes, None for no such class.
        custom: the user's own classes and functions by name.
        shapes: path and shape of the arrays stored for a layer, in order; empty if unknown.
        masked: whether some layer of the model makes a mask.
        note: takes a sentence for the user about something repaired.
        stateful: takes the name of a layer that kept its state from one call to the next.
    """

    era: int
    version: tuple[int, ...]
    accepted: Callable[[str], frozenset[str] | None]
    custom: Mapping[str, Any]
    shapes: Callable[[str], Sequence[tuple[str, Shape]]]
    masked: bool
    note: Callable[[str], None]
    stateful: Callable[[str], None] = lambda name: None


def without_slashes(name: str) -> str:
    """The name of an input: Keras 3 allows everything in it but slashes."""
    return name.replace("/", "_").replace("\\", "_")


def safe_name(name: str) -> str:
    """The name of a layer or model, made of what TensorFlow allows in the names of scopes.

    ``"My LSTM>"`` -> ``"My_LSTM_"``. Letters of other scripts keep their numbers, to stay apart.
    """
    return re.sub(
        r"[^A-Za-z0-9_.\-]",
        lambda found: "_" if found[0].isascii() else f"u{ord(found[0]):x}",
        name,
    )


def shown(config: Any) -> str:
    """A config for a person to read, cut where it gets long."""
    text = json.dumps(config, default=str)
    return text if len(text) <= 600 else text[:600] + " ..."


def version_numbers(version: str | None) -> tuple[int, ...]:
    """``"2.2.4-tf"`` -> ``(2, 2, 4)``."""
    found = re.match(r"\d+(\.\d+)*", version or "")
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def era_of(version: tuple[int, ...], config: Config) -> int:
    """1, 2 or 3. By the version where the file has one, else by words only one era used."""
    if version:
        return min(max(version[0], 1), 3)
    text = repr(config)
    if "'batch_shape'" in text or "__keras_tensor__" in text or "'DTypePolicy'" in text:
        return 3
    if "'output_dim'" in text and "'units'" not in text and "'W_regularizer'" in text:
        return 1
    return 1 if "'nb_filter'" in text or "'inner_activation'" in text else 2
