"""Work on a user's data that was cut short, kept so that it can go on where it stood."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import SampleError, UsageError
from edgeattn.files import atomic_write
from edgeattn.samples.files import read_npz, write_npz
from edgeattn.tensors import Array, Tensors

# What is kept is written again at most so often, in seconds.
EVERY = 5.0
_KEY, _NEXT, _BROKEN = "key", "next", "broken"


@dataclass(frozen=True)
class Partial:
    """A file in which unfinished work is kept, and the ``key`` of what the work is.

    The key is a hash of the artifacts, the data, the limits, the reference and the runtimes: what
    would make another result, makes another key.
    """

    path: Path
    key: str

    def load(self) -> tuple[int, dict[str, str], Tensors] | None:
        """The segment to go on with, what broke before it, and the state; None where none is kept.

        Raises :class:`UsageError` where the file holds something else.
        """
        if not self.path.exists():
            return None
        hint = "Remove it to begin anew, or name another file with --resume-file."
        try:
            arrays = dict(read_npz(self.path))
            key = _text(arrays.pop(_KEY))
            following = int(arrays.pop(_NEXT))
            broken = json.loads(_text(arrays.pop(_BROKEN)))
        except (SampleError, KeyError, ValueError) as error:
            raise UsageError(f"{self.path} holds no unfinished validation.", hint=hint) from error
        if key != self.key:
            raise UsageError(
                f"{self.path} holds the unfinished validation of other artifacts, data or limits.",
                hint=hint,
            )
        return following, broken, arrays

    def save(self, following: int, broken: Mapping[str, str], state: Tensors) -> None:
        """Keep this; written aside and renamed, so that what is there is always whole."""
        told = {
            _KEY: _bytes(self.key),
            _NEXT: np.array(following),
            _BROKEN: _bytes(json.dumps(dict(broken))),
        }
        hint = "Choose another file with --resume-file, or omit --resume."
        with atomic_write(self.path, hint=hint) as file:
            write_npz(file, {**told, **state})

    def remove(self) -> None:
        """The work is done."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def key_of(*parts: Any) -> str:
    """A hash of what JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _bytes(text: str) -> Array:
    return np.frombuffer(text.encode(), np.uint8)


def _text(array: Array) -> str:
    return bytes(array.tobytes()).decode()
