"""What a scheme means: how weights and activations are stored, and what it needs to know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgeattn.errors import UsageError


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
    )
}
TARGETS: Mapping[str, str] = {
    "litert": "tflite",
    "tflite-runtime": "tflite",
    "onnxruntime": "onnx",
}
ATTENTION_PRECISIONS = ("auto", "int8", "int16", "float32")


@dataclass(frozen=True)
class Options:
    """How a recipe is to be followed: what is the same for all schemes of one conversion.

    ``calibration`` is a file of samples. ``runtime`` is the TFLite runtime that the file is for,
    ``opset`` the ONNX operator set.
    """

    calibration: str | None = None
    integer_io: bool = False
    attention_precision: str = "auto"
    runtime: str = "litert"
    opset: int | None = None
    allow_float_fallback: bool = False

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
        recipe.scheme for recipe in RECIPES.values() if calibrated or not recipe.needs_calibration
    )


def formats_for(targets: Iterable[str]) -> tuple[str, ...]:
    """The formats that these runtimes read, each once; :class:`UsageError` for unknown ones."""
    formats = []
    for target in targets:
        if target not in TARGETS:
            raise UsageError(f"No target {target!r}: there is {', '.join(TARGETS)}.")
        formats.append(TARGETS[target])
    return tuple(dict.fromkeys(formats))
