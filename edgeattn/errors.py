"""The errors of edgeattn and their exit codes.

    EdgeattnError                   70  internal error, if not one of the following
    ├── UsageError                   2  invalid arguments
    │   ├── SampleError              2  samples that do not fit the model
    │   ├── OutputError              2  a file that cannot be written
    │   │   └── OutputInUseError     2  an output that another process is writing
    │   ├── MissingCalibrationError  2  a scheme that needs calibration samples, without any
    │   ├── NoRecurrentLayerError    2  an option for recurrent layers, and a model without any
    │   └── BundleError              2  a bundle that is incomplete, changed or malformed
    ├── UnsupportedModelError        3  a file that is not a model, or cannot be converted
    │   └── ConversionError          3  a conversion step that failed or crashed
    │       └── SchemeError          3  a scheme that a format cannot achieve for the model
    ├── UnsafeModelError             4  a file that is refused before anything in it is executed
    ├── SignatureError               4  a bundle without the required signature
    ├── RuntimeUnavailableError      5  no runtime for the artifact is installed
    ├── DeviceError                  5  another machine or Python that does not respond
    └── ArtifactError                3  an artifact that its runtime cannot load or run

Every error has a message (what is wrong, with the value), and most have a hint (what to do next).
``edgeattn/cli/main.py`` maps them to text and an exit code.
"""

# Letters of a long message that remain at its beginning and at its end.
_HALF = 200


class EdgeattnError(Exception):
    """Base class. ``message`` says what is wrong, ``hint`` what to do next."""

    exit_code = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(EdgeattnError):
    """Invalid arguments, or arguments that contradict each other."""

    exit_code = 2


class SampleError(UsageError):
    """Samples whose names, shapes, dtypes or values do not fit the model."""


class OutputError(UsageError):
    """A file or folder that exists or cannot be written."""


class OutputInUseError(OutputError):
    """An output that another process is writing at the same time."""


class MissingCalibrationError(UsageError):
    """A scheme that needs calibration samples was requested without any."""


class NoRecurrentLayerError(UsageError):
    """An option for recurrent layers was passed, and the model has no such layer."""


class BundleError(UsageError):
    """A bundle that is incomplete, changed or malformed."""


class UnsupportedModelError(EdgeattnError):
    """A file that is not a Keras model, or a model that cannot be converted."""

    exit_code = 3


class ConversionError(UnsupportedModelError):
    """A conversion step that failed, or whose process died."""


class SchemeError(ConversionError):
    """A scheme that a format cannot achieve for this model or with these options."""


class UnsafeModelError(EdgeattnError):
    """A file that is refused before anything in it is executed."""

    exit_code = 4


class SignatureError(EdgeattnError):
    """A bundle that is unsigned, was changed after signing, or has an unknown signer."""

    exit_code = 4


class RuntimeUnavailableError(EdgeattnError):
    """No runtime for the artifact is installed."""

    exit_code = 5


class DeviceError(EdgeattnError):
    """Another machine or Python that does not respond, or lacks edgeattn."""

    exit_code = 5


class ArtifactError(EdgeattnError):
    """An artifact that its runtime cannot load or run, or that crashes it."""

    exit_code = 3


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if there is none."""
    return _lines(error)[0]


def last_line(error: BaseException) -> str:
    """The last line of an error's message, which states the cause in those of runtimes."""
    return _lines(error)[-1]


def internal(error: BaseException) -> EdgeattnError:
    """The internal error that an unexpected one is, with its beginning and its end in one line.

    Those of TensorFlow contain a stack between the name of an operation and the cause.
    """
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if len(text) > 2 * _HALF:
        text = f"{text[:_HALF].rpartition(' ')[0]} ... {text[-_HALF:].partition(' ')[2]}"
    return EdgeattnError(
        text, hint="Please report this internal error, with the output of edgeattn --debug."
    )


def _lines(error: BaseException) -> list[str]:
    lines = [line.strip() for line in str(error).splitlines()]
    return [line for line in lines if line] or [type(error).__name__]
