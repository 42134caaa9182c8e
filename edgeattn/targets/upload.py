"""Copies the files that a device lacks, in pieces."""

from collections.abc import Mapping
from pathlib import Path

from edgeattn import progress
from edgeattn.errors import DeviceError
from edgeattn.targets.connection import Connection
from edgeattn.targets.on_device import session
from edgeattn.targets.on_device.file_store import PIECE_SIZE


def send_files(connection: Connection, folder: Path, files: Mapping[str, str]) -> int:
    """Copy those of ``files`` (path in ``folder``: SHA-256) that the device lacks.

    Returns the number of bytes sent. A file that an earlier attempt copied in part is resumed.
    """
    import numpy as np

    paths = {digest: folder / relative for relative, digest in files.items()}
    sizes = {digest: path.stat().st_size for digest, path in paths.items()}
    # SHA-256 of each missing file: the number of its bytes that the device has.
    missing: dict[str, int] = connection.call(session.missing_files, sizes=sizes)
    total = sum(sizes[digest] - offset for digest, offset in missing.items())
    sent = 0
    for digest, offset in missing.items():
        size = sizes[digest]
        with paths[digest].open("rb") as file:
            file.seek(offset)
            complete = False
            # At least once: an empty file is one empty piece.
            while not complete:
                piece = file.read(PIECE_SIZE)
                if not piece and offset < size:
                    raise DeviceError(f"{paths[digest]} changed while it was copied.")
                complete, _ = connection.call_with_tensors(
                    session.add_piece,
                    {"sha256": digest, "offset": offset, "size": size},
                    {"piece": np.frombuffer(piece, np.uint8)},
                )
                offset += len(piece)
                sent += len(piece)
                progress.report(f"copying: {sent:,} of {total:,} bytes")
    return sent
