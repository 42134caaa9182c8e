"""A folder with one bundle for each sequence length of a model.

model.edge/
  steps-10/                a bundle
  steps-20/                another one
"""

import re
from pathlib import Path

from edgeattn.bundle.manifest import MANIFEST

_NAME = re.compile(r"steps-([1-9][0-9]{0,5})")


def length_folder(steps: int) -> str:
    """The name of the folder of the bundle for sequences of ``steps``."""
    return f"steps-{steps}"


def bundles_by_length(folder: Path) -> dict[int, Path]:
    """The bundles in ``folder`` by their sequence length, ascending; empty if it has none.

    A folder that is a bundle has none.
    """
    if (folder / MANIFEST).exists() or not folder.is_dir():
        return {}
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    bundles = {int(match[1]): path for match, path in matches if match}
    return {steps: path for steps, path in sorted(bundles.items()) if (path / MANIFEST).is_file()}


def is_length_folder(folder: Path) -> bool:
    """Whether ``folder`` has the name of a bundle for one of several sequence lengths."""
    return _NAME.fullmatch(folder.name) is not None
