"""Names that the computer and a device share: of bundles, and of the files of a Mender Artifact."""

import re
from pathlib import Path

from edgeattn.errors import UsageError

# The type of payloads and the name of the Update Module.
UPDATE_TYPE = "edgeattn"
# The packed bundle in a Mender Artifact, and the keys of its meta-data.
PAYLOAD = "bundle.edge.zip"
META_DATA_KEYS = ("name", "formats", "schemes")
_BUNDLE_NAME = re.compile(r"\w[\w. -]*")


def bundle_name(path: Path) -> str:
    """The name of a bundle's folder on a device; the empty string if it cannot be used as one."""
    name = path.absolute().name.removesuffix(".zip").removesuffix(".edge")
    return name if _BUNDLE_NAME.fullmatch(name) else ""


def check_bundle_name(name: str) -> str:
    """``name`` unchanged; raises :class:`UsageError` if it cannot be used as a folder's name."""
    if not _BUNDLE_NAME.fullmatch(name):
        raise UsageError(
            f"{name[:80]!r} cannot be used as a folder name on a device.",
            hint="Use letters, digits, underscores, dots, hyphens and spaces.",
        )
    return name
