"""Structure: what can be said of a file without running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgeattn.bundle.manifest import Artifact
from edgeattn.metrics.limits import Check


def audit(artifact: Artifact) -> Iterator[Check]:
    """What can be said of the file without running it: is it what was asked for?

    The account of its operators, weights and variables was taken from the file when it was made,
    and the file is that one, by its hash.
    """

    def check(metric: str, value: float, limit: float | None, better: str = "<=") -> Check:
        return Check(artifact.label, "structure", metric, value, limit, better)

    achieved = artifact.achieved
    yield check("changed_files", 0.0, 0.0)
    operators = achieved.get("operators", {})
    if operators:
        foreign = [name for name in operators if name.upper().startswith(("CUSTOM", "FLEX"))]
        yield check("custom_operators", float(len(foreign)), 0.0)
    clips = achieved.get("cell_clips", ())
    if "variables" in achieved:
        # A fused LSTM has two, and clears them itself.
        yield check("state_variables", float(achieved["variables"] - 2 * len(clips)), 0.0)
    if clips:
        yield check("cell_clip", float(max(clips)), 0.0)
    if artifact.scheme != "float32":
        yield from _scheme_reached(check, artifact.scheme, achieved)


# What a scheme stores weights in, and what it computes with where that is not float32.
_STORED = {
    "float16": "float16",
    "dynamic_int8": "int8",
    "int8": "int8",
    "int16x8": "int8",
    "int4": "int4",
}
_COMPUTED = {"int8": "int8", "int16x8": "int16"}
# Smaller models gain nothing by a scheme, and converters leave their weights alone.
_WORTHWHILE = 10_000


def _scheme_reached(
    check: Callable[..., Check], scheme: str, achieved: Mapping[str, Any]
) -> Iterator[Check]:
    weights = achieved.get("weights")
    if weights:
        total = sum(weights.values())
        # Weights that attention's scores are made of may have more bits, so that its map survives.
        kept = sum(achieved.get("kept_weights", {}).values())
        share = (weights.get(_STORED[scheme], 0) + kept) / total if total else 0.0
        limit = 0.5 if total >= _WORTHWHILE and not achieved.get("fallback") else None
        yield check("weights_in_scheme", share, limit, ">=")
    computed = achieved.get("computes_in")
    if computed and scheme in _COMPUTED:
        count = sum(computed.get(_COMPUTED[scheme], {}).values())
        yield check("operators_in_scheme", float(count), 1.0, ">=")
