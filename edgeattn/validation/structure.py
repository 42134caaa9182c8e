"""The structure stage: checks of a file that need no runtime."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgeattn.bundle.manifest import Artifact
from edgeattn.metrics.limits import Check

# How each scheme stores weights, and the type it computes with, if that is not float32.
_WEIGHT_TYPES = {
    "float16": "float16",
    "dynamic_int8": "int8",
    "int8": "int8",
    "int16x8": "int8",
    "int4": "int4",
}
_OPERATOR_TYPES = {"int8": "int8", "int16x8": "int16"}
# Converters leave the weights of smaller models unquantized, because they would save nothing.
_MIN_WEIGHTS = 10_000


def structure_checks(artifact: Artifact) -> Iterator[Check]:
    """The checks of the structure stage: is the file what was requested?

    The counts of operators, weights and variables were taken from the file when it was converted,
    and its SHA-256 shows that it is still that file.
    """

    def check(metric: str, value: float, limit: float | None, relation: str = "<=") -> Check:
        return Check(artifact.label, "structure", metric, value, limit, relation)

    achieved = artifact.achieved
    yield check("changed_files", 0.0, 0.0)
    operators = achieved.get("operators", {})
    if operators:
        foreign = [name for name in operators if name.upper().startswith(("CUSTOM", "FLEX"))]
        yield check("custom_operators", float(len(foreign)), 0.0)
    clips = achieved.get("cell_clips", ())
    if "variables" in achieved:
        # A fused LSTM has two variables and resets them itself.
        yield check("state_variables", float(achieved["variables"] - 2 * len(clips)), 0.0)
    if clips:
        yield check("cell_clip", float(max(clips)), 0.0)
    if artifact.scheme != "float32":
        yield from _scheme_checks(check, artifact.scheme, achieved)


def _scheme_checks(
    check: Callable[..., Check], scheme: str, achieved: Mapping[str, Any]
) -> Iterator[Check]:
    """Are weights and operators of the types that the scheme requests?"""
    weights = achieved.get("weights")
    if weights:
        total = sum(weights.values())
        # Weights of attention scores may have more bits, which preserves the attention map.
        retained = sum(achieved.get("kept_weights", {}).values())
        share = (weights.get(_WEIGHT_TYPES[scheme], 0) + retained) / total if total else 0.0
        limit = 0.5 if total >= _MIN_WEIGHTS and not achieved.get("fallback") else None
        yield check("weights_in_scheme", share, limit, ">=")
    computed = achieved.get("computes_in")
    if computed and scheme in _OPERATOR_TYPES:
        count = sum(computed.get(_OPERATOR_TYPES[scheme], {}).values())
        yield check("operators_in_scheme", float(count), 1.0, ">=")
