"""Schemes, and the runtimes and operator sets that files can be made for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgeattn.errors import UsageError
from edgeattn.schemes import MICRO, ON_REQUEST


@dataclass(frozen=True)
class Recipe:
    """A scheme: the dtypes of weights and activations, and whether it needs calibration."""

    scheme: str
    weights: str
    activations: str
    needs_calibration: bool = False

    @property
    def uses_calibration(self) -> bool:
        """Whether calibration samples change the file: for ranges, or to choose a candidate."""
        return self.needs_calibration or self.scheme == "dynamic_int8"


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
# In a list of schemes: every scheme but those that must be named.
ALL = "all"
TARGETS: Mapping[str, str] = {
    "litert": "tflite",
    "tflite-runtime": "tflite",
    "onnxruntime": "onnx",
    MICRO: "tflite",
}
# ONNX operator sets that files are made and tested in.
OPSETS = range(13, 22)
# Precisions of one layer's weights. ``int8`` lets the layer compute as its scheme does,
# ``int8_weights`` keeps its activations float32. ``int4``, of weights only, is experimental.
PRECISIONS = ("float32", "float16", "int8", "int8_weights", "int4")


def recipe_for(scheme: str) -> Recipe:
    """The recipe of a scheme. Raises :class:`UsageError` if there is none of this name."""
    if scheme not in RECIPES:
        raise UsageError(f"Unknown scheme {scheme!r}.", hint=f"Choose one of {', '.join(RECIPES)}.")
    return RECIPES[scheme]


def default_schemes(*, calibrated: bool) -> tuple[str, ...]:
    """Every scheme that need not be named; those that need calibration if ``calibrated``."""
    return tuple(
        recipe.scheme
        for recipe in RECIPES.values()
        if recipe.scheme not in ON_REQUEST and (calibrated or not recipe.needs_calibration)
    )


def expand_schemes(names: Iterable[str], *, calibrated: bool) -> tuple[str, ...]:
    """``names``, each once; no name and :data:`ALL` stand for :func:`default_schemes`.

    Raises :class:`UsageError` if a scheme is unknown.
    """
    expanded: list[str] = []
    for name in tuple(names) or (ALL,):
        every = default_schemes(calibrated=calibrated)
        expanded += every if name == ALL else (recipe_for(name).scheme,)
    return tuple(dict.fromkeys(expanded))


def formats_for(targets: Iterable[str]) -> tuple[str, ...]:
    """The formats of these runtimes, each once. Raises :class:`UsageError` for an unknown one."""
    formats = []
    for target in targets:
        if target not in TARGETS:
            raise UsageError(
                f"Unknown target {target!r}.", hint=f"Choose one of {', '.join(TARGETS)}."
            )
        formats.append(TARGETS[target])
    return tuple(dict.fromkeys(formats))
