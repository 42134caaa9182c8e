"""edgeattn converts Keras attention models for edge devices and validates them against Keras."""

from typing import TYPE_CHECKING

from edgeattn.version import __version__

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact, Manifest
    from edgeattn.errors import (
        ArtifactError,
        BundleError,
        ConversionError,
        DeviceError,
        EdgeattnError,
        OutputError,
        RuntimeUnavailableError,
        SampleError,
        SchemeError,
        SignatureError,
        UnsafeModelError,
        UnsupportedModelError,
        UsageError,
    )
    from edgeattn.frontend.scalers import write_preprocessing
    from edgeattn.inference.load import load
    from edgeattn.inference.model import Model
    from edgeattn.inference.run import run_bundle
    from edgeattn.metrics.limits import Check
    from edgeattn.runners import Runner, open_runner
    from edgeattn.tensors import TensorSpec
    from edgeattn.validation.report import ArtifactReport, Report
    from edgeattn.validation.validate import validate, validate_isolated


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
    "SchemeError",
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
    "write_preprocessing",
]

# Imported on first use, so that the command line's help does not load numpy.
_MODULES = {
    "bundle.bundle": ("Bundle",),
    "bundle.manifest": ("Artifact", "Manifest"),
    "frontend.scalers": ("write_preprocessing",),
    "inference.run": ("run_bundle",),
    "inference.load": ("load",),
    "inference.model": ("Model",),
    "metrics.limits": ("Check",),
    "runners": ("Runner", "open_runner"),
    "tensors": ("TensorSpec",),
    "validation.report": ("ArtifactReport", "Report"),
    "validation.validate": ("validate", "validate_isolated"),
}


def __getattr__(name: str) -> object:
    import importlib

    if name in __all__:
        module = next((path for path, names in _MODULES.items() if name in names), "errors")
        return getattr(importlib.import_module(f"edgeattn.{module}"), name)
    raise AttributeError(f"module 'edgeattn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
