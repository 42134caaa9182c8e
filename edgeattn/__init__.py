"""edgeattn converts Keras attention models for edge devices and validates them against Keras."""

from typing import TYPE_CHECKING

from edgeattn.version import __version__

if TYPE_CHECKING:
    from edgeattn.api.bench import BenchResult, bench
    from edgeattn.api.convert import ConversionResult, convert
    from edgeattn.api.deploy import DeployResult, deploy
    from edgeattn.api.inspect import InspectionResult, inspect
    from edgeattn.api.load import load
    from edgeattn.api.run import RunResult, run
    from edgeattn.api.sweep import SweepResult, sweep
    from edgeattn.api.tune import TuneResult, tune
    from edgeattn.api.validate import validate
    from edgeattn.api.validation_result import ValidationResult
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact, Manifest
    from edgeattn.errors import (
        ArtifactError,
        BundleError,
        ConversionError,
        DeviceError,
        EdgeattnError,
        MissingCalibrationError,
        NoRecurrentLayerError,
        OutputError,
        OutputInUseError,
        RuntimeUnavailableError,
        SampleError,
        SchemeError,
        SignatureError,
        UnsafeModelError,
        UnsupportedModelError,
        UsageError,
    )
    from edgeattn.frontend.scalers import write_preprocessing
    from edgeattn.inference.model import Model
    from edgeattn.inference.run import run_bundle
    from edgeattn.metrics.limits import Check
    from edgeattn.runners import Runner, open_runner
    from edgeattn.tensors import TensorSpec
    from edgeattn.validation.recommendation import Recommendation
    from edgeattn.validation.report import ArtifactReport, Report
    from edgeattn.validation.validate import validate_isolated


__all__ = [
    "Artifact",
    "ArtifactError",
    "ArtifactReport",
    "BenchResult",
    "Bundle",
    "BundleError",
    "Check",
    "ConversionError",
    "ConversionResult",
    "DeployResult",
    "DeviceError",
    "EdgeattnError",
    "InspectionResult",
    "Manifest",
    "MissingCalibrationError",
    "Model",
    "NoRecurrentLayerError",
    "OutputError",
    "OutputInUseError",
    "Recommendation",
    "Report",
    "RunResult",
    "Runner",
    "RuntimeUnavailableError",
    "SampleError",
    "SchemeError",
    "SignatureError",
    "SweepResult",
    "TensorSpec",
    "TuneResult",
    "UnsafeModelError",
    "UnsupportedModelError",
    "UsageError",
    "ValidationResult",
    "__version__",
    "bench",
    "convert",
    "deploy",
    "inspect",
    "load",
    "open_runner",
    "run",
    "run_bundle",
    "sweep",
    "tune",
    "validate",
    "validate_isolated",
    "write_preprocessing",
]

# Imported on first use, so that the command line's help does not load numpy.
_MODULES = {
    "api.bench": ("BenchResult", "bench"),
    "api.convert": ("ConversionResult", "convert"),
    "api.deploy": ("DeployResult", "deploy"),
    "api.inspect": ("InspectionResult", "inspect"),
    "api.load": ("load",),
    "api.run": ("RunResult", "run"),
    "api.sweep": ("SweepResult", "sweep"),
    "api.tune": ("TuneResult", "tune"),
    "api.validate": ("validate",),
    "api.validation_result": ("ValidationResult",),
    "bundle.bundle": ("Bundle",),
    "bundle.manifest": ("Artifact", "Manifest"),
    "frontend.scalers": ("write_preprocessing",),
    "inference.run": ("run_bundle",),
    "inference.model": ("Model",),
    "metrics.limits": ("Check",),
    "runners": ("Runner", "open_runner"),
    "tensors": ("TensorSpec",),
    "validation.recommendation": ("Recommendation",),
    "validation.report": ("ArtifactReport", "Report"),
    "validation.validate": ("validate_isolated",),
}


def __getattr__(name: str) -> object:
    import importlib

    if name in __all__:
        module = next((path for path, names in _MODULES.items() if name in names), "errors")
        return getattr(importlib.import_module(f"edgeattn.{module}"), name)
    raise AttributeError(f"module 'edgeattn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
