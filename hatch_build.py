"""The description of the package: the README without what only works beside its files.

A package index shows no files of a repository, and this project has no public address to link to.
Pictures with their captions are omitted, and relative links become their text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# A picture, and the caption in italics below it.
PICTURE = re.compile(r"^!\[[^\]]*\]\([^)]*\)\n\n(?:\*(?!\*).*?\*\n\n)?", re.MULTILINE | re.DOTALL)
RELATIVE_LINK = re.compile(r"\[([^\]]+)\]\((?!https?://|#)[^)]*\)")


def description(readme: str) -> str:
    """``readme`` as a package index can show it."""
    return RELATIVE_LINK.sub(r"\1", PICTURE.sub("", readme))


class DescriptionHook(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": description(text)}
