"""What a scheme means: how weights and activations are stored, and what it needs to know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgeattn.errors import UsageError
from edgeattn.schemes import EXPERIMENTAL


@dataclass(frozen=True)
class Recipe:
    """A scheme: the dtypes of weights and activations, and whether they are measured on samples."""

    scheme: str
    weights: str
    activations: str
    needs_calibration: bool = False


RECIPES: Mapping[str, Recipe] = {
    recipe.scheme: recipe
    for recipe in (
        Recipe("float32", "float32", "float32"),
        Recipe("float16", "float16", "float32"),
        Recipe("dynamic_int8", "int8", "float32"),
        Recipe("int8", "int8", "int8", needs_calibration=True),
        Recipe("int16x8", "int8", "int16", needs_calibration=True),
        Recipe("int4", "int4", "float32"),
    )
}
TARGETS: Mapping[str, str] = {
    "litert": "tflite",
    "tflite-runtime": "tflite",
    "onnxruntime": "onnx",
}
# Operator sets of ONNX that files are made of and tested in.
OPSETS = range(13, 22)
ATTENTION_PRECISIONS = ("auto", "int8", "int16", "float32")
# Of a layer's weights; ``int8`` also has the layer compute as its scheme says, and ``int8_weights``
# leaves its activations float32. ``int4`` is for weights too, and experimental.
PRECISIONS = ("float32", "float16", "int8", "int8_weights", "int4")


@dataclass(frozen=True)
class Options:
    """How a recipe is to be followed: what is the same for all schemes of one conversion.

    ``calibration`` is a file of samples. ``runtime`` is the TFLite runtime that the file is for,
    ``opset`` the ONNX operator set. ``precision`` is that of single layers' weights, by the layer's
    name (a mapping will do), where it is not to be the scheme's: one of :data:`PRECISIONS`.
    """

    calibration: str | None = None
    integer_io: bool = False
    attention_precision: str = "auto"
    runtime: str = "litert"
    opset: int | None = None
    allow_float_fallback: bool = False
    precision: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.opset is not None and self.opset not in OPSETS:
            raise UsageError(
                f"No ONNX operator set {self.opset}: files are made of {OPSETS[0]} to {OPSETS[-1]}."
            )
        pairs = dict(self.precision)
        for name, how in pairs.items():
            if how not in PRECISIONS:
                raise UsageError(
                    f"No precision {how!r} for layer {name!r}: there is {', '.join(PRECISIONS)}."
                )
        # Options are keys of caches and travel as JSON: pairs, in one order.
        object.__setattr__(self, "precision", tuple(sorted(pairs.items())))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def recipe_for(scheme: str) -> Recipe:
    """The recipe of a scheme's name; :class:`UsageError` names those there are."""
    if scheme not in RECIPES:
        raise UsageError(f"No scheme {scheme!r}: there is {', '.join(RECIPES)}.")
    return RECIPES[scheme]


def default_schemes(*, calibrated: bool) -> tuple[str, ...]:
    """What is made where nothing was asked for: all that can be, with this data or without."""
    return tuple(
        recipe.scheme
        for recipe in RECIPES.values()
        if recipe.scheme not in EXPERIMENTAL and (calibrated or not recipe.needs_calibration)
    )


def formats_for(targets: Iterable[str]) -> tuple[str, ...]:
    """The formats that these runtimes read, each once; :class:`UsageError` for unknown ones."""
    formats = []
    for target in targets:
        if target not in TARGETS:
            raise UsageError(f"No target {target!r}: there is {', '.join(TARGETS)}.")
        formats.append(TARGETS[target])
    return tuple(dict.fromkeys(formats))
