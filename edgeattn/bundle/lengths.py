"""A folder with one bundle for each sequence length of a model.

model.edge/
  steps-10/                a bundle
  steps-20/                another one

If inputs have lengths of their own, the name has all of them: ``steps-20-8``.
"""

import re
from pathlib import Path

from edgeattn.bundle.manifest import MANIFEST

# One length for all inputs, or those of several inputs.
Lengths = int | tuple[int, ...]
_NAME = re.compile(r"steps-([1-9][0-9]{0,5}(?:-[1-9][0-9]{0,5})*)")


def length_folder(steps: Lengths) -> str:
    """The name of the folder of the bundle for sequences of ``steps``."""
    return f"steps-{joined(steps)}"


def joined(steps: Lengths) -> str:
    """The lengths with dashes between them, as in names of folders."""
    return str(steps) if isinstance(steps, int) else "-".join(map(str, steps))


def bundles_by_length(folder: Path) -> dict[Lengths, Path]:
    """The bundles in ``folder`` by their sequence lengths, ascending; empty if it has none.

    A folder that is a bundle has none.
    """
    if (folder / MANIFEST).exists() or not folder.is_dir():
        return {}
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    bundles = {tuple(map(int, match[1].split("-"))): path for match, path in matches if match}
    return {
        steps if len(steps) > 1 else steps[0]: path
        for steps, path in sorted(bundles.items())
        if (path / MANIFEST).is_file()
    }


def is_length_folder(folder: Path) -> bool:
    """Whether ``folder`` has the name of a bundle for one of several sequence lengths."""
    return _NAME.fullmatch(folder.name) is not None
