"""The inputs that an attention map looks at: those at its keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeattn.printable import counted
from edgeattn.tensors import Array, Tensors

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact

# Names of inputs at the "keys" and "queries" of maps, as in the manifest.
Attended = Mapping[str, Mapping[str, Sequence[str]]]
MAX_DRAWN_INPUTS = 3


@dataclass(frozen=True)
class DrawnInput:
    """An input of all samples: a signal ``(samples, steps, features)``, or images.

    ``grid`` are the rows and columns of the patches of an image ``(samples, height, width,
    channels)`` if there is one for each key.
    """

    name: str
    values: Array
    grid: tuple[int, int] | None = None

    @property
    def is_image(self) -> bool:
        return self.values.ndim == 4


@dataclass(frozen=True)
class AttendedInputs:
    """What is shown beside a map.

    ``tokens`` are token ids ``(samples, keys)`` if an input holds one at each key. ``drawn`` are
    inputs of numbers. ``same_queries`` is whether the queries are positions of the same input.
    ``note`` says what is missing, if anything is.
    """

    tokens: Array | None = None
    drawn: tuple[DrawnInput, ...] = ()
    same_queries: bool = True
    note: str = ""

    @property
    def grid(self) -> tuple[int, int] | None:
        """The patches of the only image."""
        return self.drawn[0].grid if len(self.drawn) == 1 else None


def attended_inputs(
    artifact: Artifact, arrays: Tensors, name: str, attended: Attended | None
) -> AttendedInputs:
    """The inputs at the keys of the map ``name``, from ``arrays`` of the reference.

    ``attended`` is what the manifest has; None if an earlier version wrote it. An input fits if it
    has a token, a step or a patch of an image for each key. If it is not recorded which inputs the
    keys come from, the only one that fits is shown.
    """
    keys = arrays[name].shape[-1]
    values = {
        spec.name: arrays[f"input/{spec.name}"]
        for spec in artifact.inputs
        if f"input/{spec.name}" in arrays
    }
    recorded = None if attended is None else attended.get(name)
    known = [item for item in values if recorded is None or item in recorded["keys"]]
    tokens = [item for item in known if _has_tokens(values[item], keys)]
    numbers = [fit for item in known if (fit := _fitting(item, values[item], keys)) is not None]
    if recorded is None:
        shared = len(values) == 1
        fitting = [*tokens, *(item.name for item in numbers)]
        if len(fitting) > 1:
            return AttendedInputs(same_queries=False, note=_unknown(fitting, attended is None))
    else:
        shared = list(recorded["queries"]) == list(recorded["keys"])
    notes = []
    if len(tokens) + len(numbers) > 1:
        combined = _words([*tokens, *(item.name for item in numbers)])
        notes.append(f"The data at the keys combine the inputs {combined}.")
    if len(tokens) > 1:
        notes.append(
            f"Keys have no labels, because {_words(tokens)} have a token for each of them."
        )
    if recorded is not None and len(known) == 1 and not tokens and not numbers:
        (only,) = known
        whole = _drawable(only, values[only])
        shape = "×".join(map(str, values[only].shape[1:]))
        notes.append(f"The map has {counted(keys, 'key')} for the whole input {only} ({shape}).")
        numbers = [] if whole is None else [whole]
    return AttendedInputs(
        values[tokens[0]] if len(tokens) == 1 else None,
        tuple(numbers[:MAX_DRAWN_INPUTS]),
        shared,
        " ".join(notes),
    )


def has_token_maps(artifact: Artifact) -> bool:
    """Whether a map has a key for each value of an integer input, as tokens need."""
    keys = {spec.shape[-1] for spec in artifact.outputs if spec.name in artifact.attention}
    return any(
        spec.dtype.lstrip("u").startswith("int")
        and not spec.quantized
        and len(spec.shape) == 2
        and spec.shape[1] in keys
        for spec in artifact.inputs
    )


def patch_grid(shape: tuple[int, ...], keys: int) -> tuple[int, int] | None:
    """Rows and columns of square patches of an image ``(height, width, channels)``.

    There is one patch for each key, apart from one more key for the class. None if the image
    cannot be divided so.
    """
    if len(shape) != 3 or shape[2] not in (1, 3):
        return None
    for patch in range(1, min(shape[:2]) + 1):
        rows, columns = shape[0] // patch, shape[1] // patch
        divides = (rows * patch, columns * patch) == shape[:2]
        if divides and rows * columns in (keys, keys - 1):
            return rows, columns
    return None


def _has_tokens(values: Array, keys: int) -> bool:
    return values.dtype.kind in "iu" and values.shape[1:] == (keys,)


def _fitting(name: str, values: Array, keys: int) -> DrawnInput | None:
    """An input of numbers with a step, or a patch of an image, for each key."""
    whole = _drawable(name, values)
    if whole is None or values.dtype.kind != "f":
        return None
    if values.shape[1] == keys and values.ndim <= 3:
        return whole
    grid = patch_grid(values.shape[1:], keys)
    return None if grid is None else DrawnInput(name, values, grid)


def _drawable(name: str, values: Array) -> DrawnInput | None:
    """A signal with at least one step, or images."""
    if not 2 <= values.ndim <= 4 or not values.size:
        return None
    if values.ndim == 4:
        return DrawnInput(name, values) if values.shape[3] in (1, 3) else None
    return DrawnInput(name, values.reshape(*values.shape[:2], -1))


def _unknown(names: Sequence[str], is_old: bool) -> str:
    reason = (
        "an earlier version of edgeattn wrote this bundle. Convert the model again"
        if is_old
        else "the data flow of the model does not show it"
    )
    return f"It is not known whether this map looks at {_words(names, 'or')}: {reason}."


def _words(names: Sequence[str], conjunction: str = "and") -> str:
    *first, last = names
    return f"{', '.join(first)} {conjunction} {last}" if first else last
