"""Files with the prepared samples of a raw file, whose name messages and reports have."""

from pathlib import Path

_SUFFIX = ".prepared.npz"


def prepared_path(folder: Path, raw: Path) -> Path:
    """Return the path in ``folder`` for the prepared samples of the file ``raw``."""
    return folder / f"{raw.name}{_SUFFIX}"


def shown_name(path: Path) -> str:
    """Return the name of the user's file: that of the raw one if ``path`` has prepared samples."""
    return path.name.removesuffix(_SUFFIX)
