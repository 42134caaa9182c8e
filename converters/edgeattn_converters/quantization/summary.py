"""What became of a requested scheme: operators and weights of a file by dtype."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgeattn.errors import SchemeError
from edgeattn.file_structure.contents import FLOAT32, INT8_WEIGHTS, FileContents
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.quantized_model import QuantizedModel
from edgeattn_converters.recipes import Recipe

# Minimum share of the large weights that have the scheme's dtype.
MIN_SHARE = 0.5
LISTED = 4
# Begins the note of a file whose operators have no fast kernels in the runtimes of its target.
SLOW = "slow on this target"
FALLBACK_HINT = "Keep the file with --allow-float-fallback."
# Begins the note of a file in which a candidate keeps operators in float32.
IN_FLOAT32 = "in float32: "
# Operators with the steps of a recurrent layer, or that repeat a graph with them.
RECURRENT = frozenset(
    {"LSTM", "GRU", "RNN", "Loop", "Scan", "WHILE", "UNIDIRECTIONAL_SEQUENCE_LSTM"}
)
QUOTIENTS = frozenset({"DIV", "Div", "Reciprocal"})
# Operators that compute no values: they look up, move, repeat, select or join them.
MOVING = frozenset(
    {"BROADCAST_TO", "CAST", "CONCATENATION", "EXPAND_DIMS", "GATHER", "GATHER_ND", "MAX_POOL_2D"}
    | {"MIRROR_PAD", "PACK", "PAD", "PADV2", "REDUCE_MAX", "REDUCE_MIN", "RESHAPE", "REVERSE_V2"}
    | {"RESIZE_NEAREST_NEIGHBOR", "SELECT", "SELECT_V2", "SLICE", "SPLIT", "SPLIT_V", "SQUEEZE"}
    | {"STRIDED_SLICE", "TILE", "TRANSPOSE", "UNPACK"}
    | {"Concat", "ConstantOfShape", "Expand", "Gather", "GatherND", "Identity", "MaxPool", "Pad"}
    | {"ReduceMax", "ReduceMin", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose"}
    | {"Unsqueeze", "Where"}
)


@dataclass(frozen=True)
class SchemeSummary:
    """The content of a file, as plain values.

    ``operators`` counts the operators that compute with real numbers, by how they compute and then
    by type; ``weights`` counts weight values by dtype. ``large_weights`` leaves out the weights
    that are too small to be quantized. ``scheme`` is that of
    :attr:`~edgeattn.file_structure.contents.FileContents.scheme`, empty if unknown. ``notes`` say
    why something stayed float. ``recurrent`` counts operators with steps of recurrent layers,
    ``exact`` the weights that stay float32 in every scheme, and ``without_reals`` the operators
    that compute with integers and booleans only.
    """

    operators: Mapping[str, Mapping[str, int]]
    weights: Mapping[str, int]
    large_weights: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    scheme: str = ""
    recurrent: Mapping[str, int] = field(default_factory=dict)
    exact: int = 0
    without_reals: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "computes_in": {how: dict(counts) for how, counts in self.operators.items()},
            "weights": dict(self.weights),
        }

    def share_of(self, dtype: str) -> float:
        """The share of the weight values that have this dtype; 0 without weights."""
        total = sum(self.weights.values())
        return self.weights.get(dtype, 0) / total if total else 0.0


def summary_of(contents: FileContents) -> SchemeSummary:
    """The summary of a file, without notes."""
    without_reals = Counter(contents.operators)
    for kinds in contents.computes_in.values():
        without_reals.subtract(kinds)
    return SchemeSummary(
        contents.computes_in,
        contents.weights,
        contents.large_weights,
        scheme=contents.scheme,
        recurrent={k: n for k, n in contents.operators.items() if k in RECURRENT},
        without_reals=dict(+without_reals),
    )


def summary_sentence(summary: SchemeSummary, recipe: Recipe) -> str:
    """One sentence, such as ``requested int8; 38 of 41 operators compute in int8, 3 in float32
    (SOFTMAX 3); 100% of 26,944 weights are int8``, followed by the notes."""
    parts = [f"requested {recipe.scheme}"]
    if summary.scheme not in ("", recipe.scheme):
        parts.append(f"achieved {summary.scheme}")
    if recipe.activations != FLOAT32:
        floats = _float_operators(summary)
        total = sum(sum(counts.values()) for counts in summary.operators.values())
        in_float = sum(floats.values())
        kinds = f" ({_listed(floats)})" if floats else ""
        # Files for microcontrollers have integers of two widths.
        other = {"int8": "int16", "int16": "int8"}[recipe.activations]
        in_other = sum(summary.operators.get(other, {}).values())
        parts.append(
            f"{total - in_float - in_other} of {total} operators compute in {recipe.activations}, "
            + (f"{in_other} in {other}, " if in_other else "")
            + f"{in_float} in float32{kinds}"
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
    # Sums and products of int16 values need int16 constants.
    dtypes = {recipe.weights, "int16"} if recipe.activations == "int16" else {recipe.weights}
    share = _share(summary.large_weights, *dtypes)
    if share < MIN_SHARE and not float16_weights:
        raise SchemeError(
            f"{recipe.scheme} was not achieved: {share:.0%} of the weights are {recipe.weights}; "
            f"values by dtype: {_listed(Counter(summary.large_weights))}.",
            hint=FALLBACK_HINT,
        )
    if recipe.activations != FLOAT32 and not _computes_in(summary, recipe):
        raise SchemeError(
            f"{recipe.scheme} was not achieved: no operator computes in {recipe.activations}. "
            f"{_why_float(summary)}",
            hint=FALLBACK_HINT,
        )


def _computes_in(summary: SchemeSummary, recipe: Recipe) -> bool:
    """Whether operators compute with the activations of ``recipe``.

    To move integers is not to compute with them, if others compute in float32 with float32 weights.
    """
    integers = summary.operators.get(recipe.activations, {})
    if not MOVING.issuperset(integers) or summary.weights.get(recipe.weights):
        return bool(integers)
    computes_in_float = summary.recurrent or not MOVING.issuperset(_float_operators(summary))
    return bool(integers) and not computes_in_float


def _why_float(summary: SchemeSummary) -> str:
    """A sentence on the operators of a file without any in integers."""
    floats = _float_operators(summary)
    quotients = Counter({name: floats[name] for name in floats if name in QUOTIENTS})
    note = next((item for item in summary.notes if item.startswith(IN_FLOAT32)), None)
    if summary.recurrent:
        listed = _listed(Counter(summary.recurrent))
        return f"The steps of recurrent layers stay float32 ({listed})."
    if note:
        return f"{note[0].upper()}{note[1:]}."
    if summary.exact:
        return "Spectra, and what leads from them to a logarithm, stay float32."
    if quotients:
        listed = _listed(quotients)
        return f"Quotients and the values that they are computed from stay float32 ({listed})."
    wide = summary.operators.get("int16", {})
    if not floats and wide:
        listed = _listed(Counter(wide))
        return f"All operators compute in int16 ({listed}): use the scheme int16x8."
    if not floats and summary.without_reals:
        listed = _listed(Counter(summary.without_reals))
        return f"The model computes with integers only ({listed}), which no scheme changes."
    if not floats:
        return "It has no operators, because its outputs do not depend on its inputs."
    if MOVING.issuperset(floats):
        return f"The model only looks up, moves or selects values ({_listed(floats)})."
    return f"These operators stay float32: {_listed(floats)}."


def _float_operators(summary: SchemeSummary) -> Counter[str]:
    floats: Counter[str] = Counter()
    for how in (FLOAT32, INT8_WEIGHTS):
        floats.update(summary.operators.get(how, {}))
    return floats


def without_exact(summary: SchemeSummary, exact: int) -> SchemeSummary:
    """The summary without ``exact`` float32 values of large weights, which no scheme rounds."""
    large = Counter(summary.large_weights)
    large[FLOAT32] -= exact
    return replace(summary, large_weights=dict(+large), exact=exact)


def with_summary(
    model: QuantizedModel,
    summary: SchemeSummary,
    recipe: Recipe,
    options: QuantizationOptions,
    exact: int = 0,
) -> QuantizedModel:
    """``model`` with its ``achieved`` entry for the manifest.

    ``exact`` is the number of values of large weights that stay float32 in every scheme. Raises
    :class:`SchemeError` if the scheme was not achieved, unless ``options`` allow that or set the
    precision of single layers.
    """
    notes = (*model.notes, f"{exact:,} weights of spectra stay float32") if exact else model.notes
    summary = without_exact(replace(summary, notes=notes), exact)
    achieved: dict[str, Any] = summary.to_json()
    float16_weights = bool(model.candidate.float16)
    try:
        require_scheme(summary, recipe, float16_weights=float16_weights)
    except SchemeError:
        if not (options.allow_float_fallback or options.precision):
            raise
        achieved["fallback"] = True
    if float16_weights and _share(summary.large_weights, recipe.weights, "float16") < MIN_SHARE:
        achieved["fallback"] = True
    if recipe.scheme != FLOAT32:
        achieved["summary"] = summary_sentence(summary, recipe)
        achieved["notes"] = list(summary.notes)
    if exact and recipe.scheme != FLOAT32:
        achieved["exact_weights"] = exact
    if float16_weights and recipe.weights != "float16":
        achieved["kept_weights"] = {"float16": summary.weights.get("float16", 0)}
    if model.cost:
        achieved["cost"] = dict(model.cost)
        if options.attention_precision != "auto":
            achieved["attention_precision"] = options.attention_precision
    return replace(model, achieved=achieved)


def _share(weights: Mapping[str, int], *dtypes: str) -> float:
    """The share of the weight values that have these dtypes; 1 without weights."""
    total = sum(weights.values())
    return sum(weights.get(dtype, 0) for dtype in dtypes) / total if total else 1.0


def _listed(counts: Counter[str]) -> str:
    common = counts.most_common()
    names = ", ".join(f"{name} {count:,}" for name, count in common[:LISTED])
    return names + (", ..." if len(common) > LISTED else "")
