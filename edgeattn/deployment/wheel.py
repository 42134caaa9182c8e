"""Builds a wheel of the installed edgeattn, without the converters."""

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

NAME = "edgeattn"


def build_wheel(folder: Path) -> Path:
    """Write the wheel into ``folder``; the same files give the same bytes.

    https://packaging.python.org/en/latest/specifications/binary-distribution-format/
    """
    package = Path(__file__).parents[1]
    version = metadata.version(NAME)
    info = f"{NAME}-{version}.dist-info"
    files: dict[str, bytes] = {
        f"{NAME}/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    text = metadata.distribution(NAME).read_text("METADATA")
    files[f"{info}/METADATA"] = (text or f"Name: {NAME}\nVersion: {version}\n").encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: {NAME} {version}\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n"
    ).encode()
    files[f"{info}/entry_points.txt"] = (
        f"[console_scripts]\n{NAME} = {NAME}.cli.main:main\n".encode()
    )
    record = "".join(
        f"{name},sha256={_record_hash(data)},{len(data)}\n" for name, data in files.items()
    )
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = folder / f"{NAME}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            # The default date, 1 January 1980, does not depend on when the wheel is built.
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return wheel


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
