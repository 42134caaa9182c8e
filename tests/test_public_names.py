"""The public names of ``edgeattn``. Removing one breaks the code of users."""

import inspect

import pytest

import edgeattn
from edgeattn import errors

NAMES = [
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
CODES = {
    "EdgeattnError": 70,
    "UsageError": 2,
    "SampleError": 2,
    "OutputError": 2,
    "OutputInUseError": 2,
    "MissingCalibrationError": 2,
    "NoRecurrentLayerError": 2,
    "BundleError": 2,
    "UnsupportedModelError": 3,
    "ConversionError": 3,
    "SchemeError": 3,
    "UnsafeModelError": 4,
    "SignatureError": 4,
    "RuntimeUnavailableError": 5,
    "DeviceError": 5,
    "ArtifactError": 3,
}


def test_all_names_are_exported():
    assert edgeattn.__all__ == NAMES
    assert set(NAMES) <= set(dir(edgeattn))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_a_docstring(name):
    value = getattr(edgeattn, name)
    if name != "__version__":
        assert value.__name__ == name
        assert value.__module__.startswith("edgeattn.")
        assert inspect.getdoc(value)


def test_other_names_raise_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'convert_lengths'"):
        edgeattn.convert_lengths  # noqa: B018  a function of edgeattn_converters
    star = {}
    exec("from edgeattn import *", star)
    assert set(NAMES) <= set(star)


def test_errors_and_their_exit_codes():
    codes = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    assert codes == CODES
    assert set(CODES) <= set(NAMES)
    for name in CODES:
        error = getattr(edgeattn, name)("the problem", hint="the remedy")
        assert (error.message, error.hint) == ("the problem", "the remedy")
        assert str(error) == "the problem\nthe remedy"
        assert str(getattr(edgeattn, name)("the problem")) == "the problem"


def test_tree_of_errors_in_the_docstring():
    documented = {}
    path = []
    for line in errors.__doc__.splitlines():
        words = line.replace("│", " ").replace("├──", "   ").replace("└──", "   ")
        if len(words.split()) > 1 and words.split()[0] in CODES:
            depth = (len(words) - len(words.lstrip())) // 4 - 1
            name, code = words.split()[:2]
            path = [*path[:depth], name]
            documented[name] = (int(code), path[-2] if depth else "Exception")
    assert documented == {
        name: (code, getattr(errors, name).__base__.__name__) for name, code in CODES.items()
    }
