"""The errors edgeattn raises on purpose.

    EdgeattnError                   70  a fault of ours, unless a subclass says otherwise
    ├── UsageError                   2  what was asked cannot be done as asked
    │   ├── SampleError              2  samples that do not fit the model
    │   ├── OutputError              2  a result that cannot be written where it was asked for
    │   └── BundleError              2  a bundle that is incomplete, changed or not a bundle
    ├── UnsupportedModelError        3  a file that is no model, or a model that cannot be converted
    │   └── ConversionError          3  a conversion stage failed or crashed
    ├── UnsafeModelError             4  a file that is refused before anything in it is run
    ├── SignatureError               4  a bundle that nobody trusted signed, where that is asked for
    ├── RuntimeUnavailableError      5  no runtime for the artifact is installed here
    ├── DeviceError                  5  another machine or interpreter that does not answer
    └── ArtifactError                5  an artifact that its runtime cannot load or run, or died of

Every error has a message (what was expected, what came), and most have a hint: the next thing to
try. They are turned into text and an exit code in one place, ``edgeattn/cli/main.py``.
"""

from __future__ import annotations


class EdgeattnError(Exception):
    """Base class: ``message`` says what was expected and what came, ``hint`` what to try next."""

    exit_code = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(EdgeattnError):
    """What was asked cannot be done as asked."""

    exit_code = 2


class SampleError(UsageError):
    """Samples whose names, shapes, dtypes or values do not fit the model."""


class OutputError(UsageError):
    """A result that cannot be written where it was asked for."""


class BundleError(UsageError):
    """A bundle that is incomplete, was changed after it was made, or is no bundle."""


class UnsupportedModelError(EdgeattnError):
    """A file that is no Keras model, or a model that cannot be converted."""

    exit_code = 3


class ConversionError(UnsupportedModelError):
    """A conversion stage failed, or its process died."""


class UnsafeModelError(EdgeattnError):
    """A model file that is refused before anything in it is run."""

    exit_code = 4


class SignatureError(EdgeattnError):
    """A bundle that is unsigned, changed since, or signed by nobody who is trusted."""

    exit_code = 4


class RuntimeUnavailableError(EdgeattnError):
    """No runtime for the artifact is installed here."""

    exit_code = 5


class DeviceError(EdgeattnError):
    """Another machine, root or interpreter that does not answer as edgeattn does."""

    exit_code = 5


class ArtifactError(EdgeattnError):
    """An artifact that its runtime cannot load or run, or that killed it."""

    exit_code = 5


def first_line(error: BaseException) -> str:
    """What a library's error says first; its class where it says nothing."""
    return _lines(error)[0]


def last_line(error: BaseException) -> str:
    """What a library's error says last: runtimes put the cause there."""
    return _lines(error)[-1]


def _lines(error: BaseException) -> list[str]:
    lines = [line.strip() for line in str(error).splitlines()]
    return [line for line in lines if line] or [type(error).__name__]
