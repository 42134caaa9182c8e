"""The versions that results depend on: those of packages, and the source code of edgeattn."""

import contextlib
import functools
import hashlib
import importlib.metadata
import platform

from edgeattn.converters import source_folders

# What decides which files a conversion makes and what they compute.
PACKAGES = (
    *("edgeattn", "tensorflow", "keras", "tf_keras", "onnx", "tf2onnx", "numpy"),
    *("ai-edge-litert", "tflite-micro", "onnxruntime"),
)
# The name of the digest among the versions.
SOURCE = "edgeattn source"


def package_versions() -> dict[str, str]:
    """The versions by name, of the packages that are installed."""
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {**versions, SOURCE: source_digest()}


@functools.cache
def source_digest() -> str:
    """The SHA-256 of edgeattn's Python files, in hex, shortened to 16 digits.

    A clone has the same version before and after a change, and other results.
    """
    digest = hashlib.sha256()
    for folder in source_folders():
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder.parent).as_posix()
            content = path.read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]
