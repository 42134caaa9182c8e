"""edgeattn: Keras attention models on edge devices, and proof that they look where they looked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeattn.bundle import Artifact, Bundle, Manifest
    from edgeattn.errors import (
        ArtifactError,
        BundleError,
        ConversionError,
        DeviceError,
        EdgeattnError,
        OutputError,
        RuntimeUnavailableError,
        SampleError,
        SignatureError,
        UnsafeModelError,
        UnsupportedModelError,
        UsageError,
    )
    from edgeattn.loading import Model, load
    from edgeattn.runners import Runner, open_runner
    from edgeattn.running import run_bundle
    from edgeattn.tensors import TensorSpec
    from edgeattn.validation import ArtifactReport, Check, Report, validate, validate_isolated

__version__ = "0.1.0.dev0"

__all__ = [
    "Artifact",
    "ArtifactError",
    "ArtifactReport",
    "Bundle",
    "BundleError",
    "Check",
    "ConversionError",
    "DeviceError",
    "EdgeattnError",
    "Manifest",
    "Model",
    "OutputError",
    "Report",
    "Runner",
    "RuntimeUnavailableError",
    "SampleError",
    "SignatureError",
    "TensorSpec",
    "UnsafeModelError",
    "UnsupportedModelError",
    "UsageError",
    "__version__",
    "load",
    "open_runner",
    "run_bundle",
    "validate",
    "validate_isolated",
]

# Imported when they are first asked for: the command line's help needs no numpy.
_ROOMS = {
    "bundle": ("Artifact", "Bundle", "Manifest"),
    "loading": ("Model", "load"),
    "runners": ("Runner", "open_runner"),
    "running": ("run_bundle",),
    "tensors": ("TensorSpec",),
    "validation": ("ArtifactReport", "Check", "Report", "validate", "validate_isolated"),
}


def __getattr__(name: str) -> object:
    import importlib

    if name in __all__:
        room = next((room for room, names in _ROOMS.items() if name in names), "errors")
        return getattr(importlib.import_module(f"edgeattn.{room}"), name)
    raise AttributeError(f"module 'edgeattn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
