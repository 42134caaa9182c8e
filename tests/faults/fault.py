"""A fault to plant in an artifact: how it is planted, and the stage that must detect it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeattn.bundle.manifest import Artifact
from edgeattn.file_structure.read import parse_contents
from edgeattn.runners import Runner

Array = np.ndarray
LOADING, STRUCTURE, NUMBERS = "loading", "structure", "numbers"
ATTENTION, TASK = "attention", "task"
UNSEEN = "no sample shows them"
SMALL = "they are smaller than the tolerance, or than the rounding of the scheme"


@dataclass(frozen=True)
class Fault:
    """A fault in the artifact of a model.

    Attributes:
        name: Short description.
        model: Name of the model.
        stage: The stage of the validation that must fail.
        plant: Edits the bytes of the file.
        wrap: Wraps the runner, for faults that no file can express.
        format: Format of the artifact.
        scheme: Scheme of the artifact.
        entry: Edits the entry in the manifest.
        only: Whether no other stage may fail.
        data: Whether the digits of the sample model are the user's data.
        outside: Why the fault cannot be detected; empty if it must be.
        source: Scheme of the file that is used and edited, if it is not that of the entry.
        recounted: Whether the manifest describes the edited file, as after a conversion that had
            this fault, and not the file before it.
    """

    name: str
    model: str
    stage: str
    plant: Callable[[bytes], bytes] | None = None
    wrap: Callable[[Runner], Runner] | None = None
    format: str = "onnx"
    scheme: str = "float32"
    entry: Callable[[Artifact, bytes], Artifact] | None = None
    only: bool = False
    data: bool = False
    outside: str = ""
    source: str = ""
    recounted: bool = True


def recounted(artifact: Artifact, content: bytes) -> Artifact:
    """The entry with the size and, if it can be read, the counts of the edited file."""
    artifact = replace(artifact, bytes=len(content))
    try:
        counts = parse_contents(content, artifact.format).to_json()
    except ValueError:
        return artifact
    return replace(artifact, achieved={**artifact.achieved, **counts})


def set_value(index: Any, number: float) -> Callable[[Array], Array]:
    """An edit that sets the values at ``index``."""

    def function(value: Array) -> Array:
        value[index] = number
        return value

    return function


def add_value(index: Any, number: float) -> Callable[[Array], Array]:
    """An edit that adds ``number`` to the values at ``index``."""

    def function(value: Array) -> Array:
        value[index] += number
        return value

    return function
