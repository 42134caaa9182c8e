"""What ``import edgeattn`` promises. A name that goes away here breaks somebody's code."""

import inspect

import pytest

import edgeattn
from edgeattn import errors

NAMES = [
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
CODES = {
    "EdgeattnError": 70,
    "UsageError": 2,
    "SampleError": 2,
    "OutputError": 2,
    "BundleError": 2,
    "UnsupportedModelError": 3,
    "ConversionError": 3,
    "UnsafeModelError": 4,
    "SignatureError": 4,
    "RuntimeUnavailableError": 5,
    "DeviceError": 5,
    "ArtifactError": 5,
}


def test_names():
    assert edgeattn.__all__ == NAMES
    assert set(NAMES) <= set(dir(edgeattn))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name):
    found = getattr(edgeattn, name)
    if name != "__version__":
        assert found.__name__ == name
        assert found.__module__.startswith("edgeattn.")
        assert inspect.getdoc(found)


def test_no_other_name():
    with pytest.raises(AttributeError, match="no attribute 'convert'"):
        edgeattn.convert  # noqa: B018  it is edgeattn_converters'
    star = {}
    exec("from edgeattn import *", star)
    assert set(NAMES) <= set(star)


def test_errors_and_their_exit_codes():
    found = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    assert found == CODES
    assert set(CODES) <= set(NAMES)
    for name in CODES:
        told = getattr(edgeattn, name)("what came", hint="what to try")
        assert (told.message, told.hint) == ("what came", "what to try")
        assert str(told) == "what came\nwhat to try"
        assert str(getattr(edgeattn, name)("what came")) == "what came"


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = {}
    path = []
    for line in errors.__doc__.splitlines():
        words = line.replace("│", " ").replace("├──", "   ").replace("└──", "   ")
        if len(words.split()) > 1 and words.split()[0] in CODES:
            depth = (len(words) - len(words.lstrip())) // 4 - 1
            name, code = words.split()[:2]
            path = [*path[:depth], name]
            drawn[name] = (int(code), path[-2] if depth else "Exception")
    assert drawn == {
        name: (code, getattr(errors, name).__base__.__name__) for name, code in CODES.items()
    }
