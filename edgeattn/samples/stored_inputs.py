"""Inputs in place of preprocessing layers that were removed, in notes and in errors about samples.

``stored`` has, by the name of such an input, that of the input of the stored model.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgeattn.errors import SampleError
from edgeattn.printable import enumerated
from edgeattn.samples.arrays import npz_members
from edgeattn.samples.files import ways_of_raw


def replaced_inputs(stored: Mapping[str, str]) -> str:
    """Which inputs replace each input of the stored model; empty if all have the same names."""
    names: dict[str, list[str]] = {}
    for name, original in sorted(stored.items()):
        if name != original:
            names.setdefault(original, []).append(name)
    return "; ".join(
        f"{enumerated([repr(name) for name in replacing])} "
        f"{'is' if len(replacing) == 1 else 'are'} in place of the input {original!r}"
        for original, replacing in sorted(names.items())
    )


@contextlib.contextmanager
def explaining_stored_inputs(
    path: Path, stored: Mapping[str, str], *, front_end: bool
) -> Iterator[None]:
    """Add the inputs of the stored model to errors about a file that lacks one in their place.

    ``front_end`` says that the bundle can prepare raw values.
    """
    try:
        yield
    except SampleError as error:
        if path.suffix.lower() != ".npz" or set(stored) <= set(npz_members(path)):
            raise
        names = replaced_inputs(stored)
        is_text = error.hint == ways_of_raw("text")
        ways = f"{ways_of_raw('values')}." if front_end and not is_text else ""
        texts = (names and f"{names}.", ways, error.hint)
        raise SampleError(error.message, hint=" ".join(filter(None, texts))) from error
