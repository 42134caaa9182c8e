"""What became of a requested scheme: operators and weights of a file by dtype."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgeattn.errors import SchemeError
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.quantized_model import QuantizedModel
from edgeattn_converters.recipes import Recipe

# How an operator computes. With ``INT8_WEIGHTS`` its weights are integers, its activations are not.
FLOAT32, INT8_WEIGHTS = "float32", "int8 weights"
# Minimum share of the large weights that have the scheme's dtype.
MIN_SHARE = 0.5
LISTED = 4
FALLBACK_HINT = "Keep the file with --allow-float-fallback."


@dataclass(frozen=True)
class SchemeSummary:
    """The content of a file, as plain values.

    ``operators`` counts the operators that compute with real numbers, by how they compute and then
    by type; ``weights`` counts weight values by dtype. ``large_weights`` leaves out the weights
    that are too small to be quantized. ``notes`` say why something stayed float.
    """

    operators: Mapping[str, Mapping[str, int]]
    weights: Mapping[str, int]
    large_weights: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "computes_in": {how: dict(counts) for how, counts in self.operators.items()},
            "weights": dict(self.weights),
        }

    def share_of(self, dtype: str) -> float:
        """The share of the weight values that have this dtype; 0 without weights."""
        total = sum(self.weights.values())
        return self.weights.get(dtype, 0) / total if total else 0.0


def summarize(
    operators: Iterable[tuple[str, str]], weights: Iterable[tuple[str, int]], min_elements: int
) -> SchemeSummary:
    """Count ``(type, how)`` of the operators that compute, and ``(dtype, size)`` of the weights."""
    by_dtype: dict[str, Counter[str]] = {}
    for kind, how in operators:
        by_dtype.setdefault(how, Counter())[kind] += 1
    every: Counter[str] = Counter()
    large: Counter[str] = Counter()
    for dtype, size in weights:
        every[dtype] += size
        if size >= min_elements:
            large[dtype] += size
    return SchemeSummary(
        {how: dict(sorted(counts.items())) for how, counts in by_dtype.items()},
        dict(sorted(every.items())),
        dict(large),
    )


def summary_sentence(summary: SchemeSummary, recipe: Recipe) -> str:
    """One sentence, such as ``requested int8; 38 of 41 operators compute in int8, 3 in float32
    (SOFTMAX 3); 100% of 26,944 weights are int8``, followed by the notes."""
    parts = [f"requested {recipe.scheme}"]
    if recipe.activations != FLOAT32:
        floats: Counter[str] = Counter()
        for how in (FLOAT32, INT8_WEIGHTS):
            floats.update(summary.operators.get(how, {}))
        total = sum(sum(counts.values()) for counts in summary.operators.values())
        in_float = sum(floats.values())
        kinds = f" ({_listed(floats)})" if floats else ""
        parts.append(
            f"{total - in_float} of {total} operators compute in {recipe.activations}, "
            f"{in_float} in float32{kinds}"
        )
    weights = sum(summary.weights.values())
    parts.append(
        f"{summary.share_of(recipe.weights):.0%} of {weights:,} weights are {recipe.weights}"
    )
    if not summary.large_weights:
        parts.append("no weight is large enough to be quantized")
    return "; ".join([*parts, *summary.notes])


def require_scheme(
    summary: SchemeSummary, recipe: Recipe, *, float16_weights: bool = False
) -> None:
    """Raise :class:`SchemeError` if the file is not what ``recipe`` requests.

    With ``float16_weights``, some large weights are float16 on purpose, and their share does not
    count.
    """
    if recipe.scheme == FLOAT32:
        return
    total = sum(summary.large_weights.values())
    share = summary.large_weights.get(recipe.weights, 0) / total if total else 1.0
    if share < MIN_SHARE and not float16_weights:
        raise SchemeError(
            f"{recipe.scheme} was not achieved: {share:.0%} of the weights are {recipe.weights}; "
            f"values by dtype: {_listed(Counter(summary.large_weights))}.",
            hint=FALLBACK_HINT,
        )
    if recipe.activations not in (FLOAT32, *summary.operators):
        raise SchemeError(
            f"{recipe.scheme} was not achieved: no operator computes in {recipe.activations}.",
            hint=FALLBACK_HINT,
        )


def with_summary(
    model: QuantizedModel, summary: SchemeSummary, recipe: Recipe, options: QuantizationOptions
) -> QuantizedModel:
    """``model`` with its ``achieved`` entry for the manifest.

    Raises :class:`SchemeError` if the scheme was not achieved, unless ``options`` allow that or
    set the precision of single layers.
    """
    summary = replace(summary, notes=model.notes)
    achieved: dict[str, Any] = summary.to_json()
    float16_weights = bool(model.candidate.float16)
    try:
        require_scheme(summary, recipe, float16_weights=float16_weights)
    except SchemeError:
        if not (options.allow_float_fallback or options.precision):
            raise
        achieved["fallback"] = True
    if recipe.scheme != FLOAT32:
        achieved["summary"] = summary_sentence(summary, recipe)
        achieved["notes"] = list(summary.notes)
    if float16_weights and recipe.weights != "float16":
        achieved["kept_weights"] = {"float16": summary.weights.get("float16", 0)}
    if model.cost:
        achieved["cost"] = dict(model.cost)
    return replace(model, achieved=achieved)


def _listed(counts: Counter[str]) -> str:
    common = counts.most_common()
    names = ", ".join(f"{name} {count:,}" for name, count in common[:LISTED])
    return names + (", ..." if len(common) > LISTED else "")
