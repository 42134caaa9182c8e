"""Combinations of options in which one has no effect: they are refused before a model is read."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edgeattn.errors import MissingCalibrationError, UsageError
from edgeattn.printable import enumerated
from edgeattn.schemes import MICRO
from edgeattn_converters.options import ConversionOptions, ModelSource, QuantizationOptions
from edgeattn_converters.recipes import ALL, RECIPES, TARGETS, recipe_for


@dataclass(frozen=True)
class Request:
    """All options of a conversion; ``options`` names every format and scheme."""

    source: ModelSource
    options: ConversionOptions
    quantization: QuantizationOptions

    def has_format(self, format: str) -> bool:
        return format in self.options.formats

    def has_scheme(self, matches: Callable[[str], bool]) -> bool:
        return any(matches(scheme) for scheme in self.options.schemes)


@dataclass(frozen=True)
class Rule:
    """An option, when it is passed, and when it changes the result.

    Attributes:
        option: The option as it is written, with its value.
        passed: Whether the user chose it.
        effective: Whether it changes a file of this request.
        reason: Why it does not.
        hint: What to do instead, after "Omit it, or".
    """

    option: Callable[[Request], str]
    passed: Callable[[Request], bool]
    effective: Callable[[Request], bool]
    reason: str
    hint: str


def check_combination(request: Request, *, named_schemes: Sequence[str] = ()) -> None:
    """Raise :class:`UsageError` if an option has no effect, or needs one that is missing.

    ``named_schemes`` are those that the user chose by name.
    """
    _check_integers(request)
    for rule in RULES:
        if rule.passed(request) and not rule.effective(request):
            raise UsageError(
                f"{rule.option(request)} has no effect: {rule.reason}.",
                hint=f"Omit it, or {rule.hint}.",
            )
    for target in request.options.targets:
        if not request.has_format(TARGETS[target]):
            raise UsageError(
                f"--target {target} has no effect: no {TARGETS[target]} file is requested.",
                hint=f"Omit it, or add --format {TARGETS[target]}.",
            )
    needing = [name for name in named_schemes if name != ALL and recipe_for(name).needs_calibration]
    if needing and not request.quantization.calibrated:
        raise MissingCalibrationError(
            f"{enumerated(needing)}: calibration samples are missing.",
            hint="Pass real inputs: --calibration FILE",
        )


def _check_integers(request: Request) -> None:
    """Raise :class:`UsageError` if an option contradicts integers only, or Lite Micro."""
    options, quantization = request.options, request.quantization
    micro = MICRO in options.targets
    if micro and len(options.targets) > 1:
        others = enumerated([name for name in options.targets if name != MICRO])
        raise UsageError(
            f"--target {MICRO} cannot be combined with {others}: a file for a microcontroller is "
            "slow elsewhere.",
            hint="Convert once for each, to two bundles.",
        )
    for option, requested in (("--integer-only", quantization.integer_only), (MICRO, micro)):
        if not requested:
            continue
        option = f"--target {option}" if option == MICRO else option
        for other, contradicts in _contradictions(request, micro=micro):
            if contradicts:
                raise UsageError(
                    f"{option} and {other} contradict each other.", hint="Omit one of them."
                )


def _contradictions(request: Request, *, micro: bool) -> Iterator[tuple[str, bool]]:
    """Options, and whether they are requested, that files without float operators exclude."""
    options, quantization = request.options, request.quantization
    yield "--format onnx", request.has_format("onnx")
    for scheme in options.schemes:
        yield f"--scheme {scheme}", RECIPES[scheme].activations == "float32"
    yield "--attention-precision float32", quantization.attention_precision == "float32"
    # Loops compute in float32, and the state of a fused LSTM is float32 in LiteRT.
    yield "--lowering chunked", options.lowering == "chunked"
    yield "--lowering fused", options.lowering == "fused" and not micro
    yield "--allow-float-fallback", quantization.allow_float_fallback and quantization.integer_only


def _of_activations(*dtypes: str) -> Callable[[Request], bool]:
    return lambda request: request.has_scheme(lambda name: RECIPES[name].activations in dtypes)


def _precision_applies(request: Request) -> bool:
    precision = request.quantization.attention_precision
    dtypes = ("int8", "int16") if precision == "float32" else (precision,)
    if MICRO in request.options.targets and precision == "int16":
        dtypes = ("int8", "int16")
    return _of_activations(*dtypes)(request)


def _calibration_applies(request: Request) -> bool:
    # Without --samples, the reference is drawn from the calibration samples.
    has_samples = request.source.samples is not None or request.source.raw_samples is not None
    return not has_samples or request.has_scheme(lambda name: RECIPES[name].uses_calibration)


RULES = (
    Rule(
        lambda request: f"--arena {request.options.arena}",
        lambda request: request.options.arena is not None,
        lambda request: MICRO in request.options.targets,
        "only files for microcontrollers have an arena",
        f"add --target {MICRO}",
    ),
    Rule(
        lambda request: f"--lowering {request.options.lowering}",
        lambda request: request.options.lowering != "auto",
        lambda request: request.has_format("tflite"),
        "an ONNX file has one node for each recurrence",
        "add --format tflite",
    ),
    Rule(
        lambda request: f"--batch {request.options.batch}",
        lambda request: request.options.batch != 1,
        lambda request: request.has_format("tflite"),
        "it applies to TFLite files only",
        "add --format tflite",
    ),
    Rule(
        lambda request: f"--opset {request.quantization.opset}",
        lambda request: request.quantization.opset is not None,
        lambda request: request.has_format("onnx"),
        "no ONNX file is requested",
        "add --format onnx",
    ),
    Rule(
        lambda _: "--integer-io",
        lambda request: request.quantization.integer_io,
        _of_activations("int8", "int16"),
        "no scheme with integer activations is requested",
        "add --scheme int8 or --scheme int16x8, with --calibration FILE",
    ),
    Rule(
        lambda request: f"--attention-precision {request.quantization.attention_precision}",
        lambda request: request.quantization.attention_precision != "auto",
        _precision_applies,
        "int8 applies to the scheme int8, int16 to int16x8, and float32 to both",
        "add the scheme, with --calibration FILE",
    ),
    Rule(
        lambda _: "--allow-float-fallback",
        lambda request: request.quantization.allow_float_fallback,
        lambda request: request.has_scheme(lambda name: name != "float32"),
        "a float32 file always achieves its scheme",
        "add another scheme",
    ),
    Rule(
        lambda request: (
            "--raw-calibration" if request.quantization.raw_calibration else "--calibration"
        ),
        lambda request: request.quantization.calibrated,
        _calibration_applies,
        "no requested scheme uses it, and the reference is drawn from --samples",
        "add --scheme int8",
    ),
)
