"""Notes for the user about the layers of a model."""

from collections.abc import Iterable

# More names are counted.
MOST_NAMES = 6


def combined_notes(notes: Iterable[str]) -> tuple[str, ...]:
    """The notes without repetitions; those that differ only in the layer are one note.

    Notes about a layer start with its name: ``"lstm: ..."`` and ``"gru: ..."`` become
    ``"lstm, gru: ..."``.
    """
    layers: dict[tuple[bool, str], list[str]] = {}
    for note in dict.fromkeys(notes):
        name, colon, text = note.partition(": ")
        if colon and " " not in name:
            layers.setdefault((True, text), []).append(name)
        else:
            layers[False, note] = []
    return tuple(
        f"{_listed(names)}: {text}" if of_layers else text
        for (of_layers, text), names in layers.items()
    )


def _listed(names: list[str]) -> str:
    if len(names) <= MOST_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[: MOST_NAMES - 1])} and {len(names) - MOST_NAMES + 1} more layers"
