"""An experiment's outcome, out of what ``convert``, ``validate`` and ``bench`` answered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

# The normal distribution's, for the 95% in the middle.
Z = 1.959964


def verdicts(
    converted: Mapping[str, Any], validated: Mapping[str, Any], timed: Mapping[str, Any]
) -> dict[str, Any]:
    """Keras' score, a row for each artifact, and what could not be made."""
    achieved = {_key(item): item["achieved"].get("summary") for item in converted["artifacts"]}
    sizes = {_key(item): item["bytes"] for item in converted["artifacts"]}
    times = {_key(item): item["p50_ms"] for item in timed["artifacts"]}
    unit = times.get(("tflite", "float32")) or times.get(("onnx", "float32"))
    rows, original = [], None
    for item in validated["artifacts"]:
        outcomes = (item["task"] or {}).get("outputs") or [None]
        outcome = outcomes[0]
        if outcome is not None and original is None:
            original = _score(outcome, outcome["reference"])
        milliseconds = times.get(_key(item))
        rows.append(
            {
                "format": item["format"],
                "scheme": item["scheme"],
                "runtime": item["runtime"],
                "bytes": sizes[_key(item)],
                "verdict": item["verdict"],
                "stages": item["stages"],
                **({"score": None} if outcome is None else _score(outcome, outcome["artifact"])),
                "drop": outcome and outcome["drop"],
                "drop_interval": outcome and outcome["interval"],
                "attention": _fidelity(item["checks"]),
                "latency_ratio": milliseconds / unit if milliseconds and unit else None,
                "achieved": achieved.get(_key(item)),
                "notes": list((item["task"] or {}).get("notes", [])),
                "failed": [
                    f"{c['metric']} {c['value']:.3g}, limit {c['limit']:.3g}"
                    for c in item["checks"]
                    if c["passed"] is False
                ],
            }
        )
    return {"keras": original, "artifacts": rows, "failures": converted["failures"]}


def _score(outcome: Mapping[str, Any], value: float) -> dict[str, Any]:
    decisions = outcome["score"] == "accuracy"
    return {
        "kind": outcome["score"],
        "score": value,
        "interval": list(wilson(value, outcome["samples"])) if decisions else None,
        "samples": outcome["samples"],
    }


def _fidelity(checks: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """The attention map's metrics, the worst of all maps."""
    told = ("max_abs_error", "jensen_shannon", "argmax_stability")
    found: dict[str, list[float]] = {}
    for check in checks:
        if check["stage"] == "attention" and check["metric"] in told:
            found.setdefault(check["metric"], []).append(float(check["value"]))
    return {k: (min if k == "argmax_stability" else max)(v) for k, v in found.items()} or None


def _key(item: Mapping[str, Any]) -> tuple[str, str]:
    return item["format"], item["scheme"]


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95% score interval of a share of ``count`` decisions (Wilson 1927)."""
    middle = share + Z**2 / (2 * count)
    half = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    scale = 1 + Z**2 / count
    return (middle - half) / scale, (middle + half) / scale


def as_text(result: Mapping[str, Any]) -> str:
    """The result as a table for the terminal."""
    original = result["keras"]
    lines = [f"{result['example']}: {result['parameters']:,} parameters", ""]
    if original is not None:
        lines += [f"Keras: {told_score(original)} on {original['samples']:,} test samples", ""]
    for item in result["artifacts"]:
        score = "task not run" if item["score"] is None else told_score(item)
        lines.append(
            f"{item['format']:7}{item['scheme']:13}{item['bytes']:>10,} bytes  {item['verdict']:13}"
            f"{score}"
        )
    lines += [f"{f['format']} {f['scheme']}: {f['reason']}" for f in result["failures"]]
    return "\n".join([*lines, "", f"Verdict: {result['verdict']}"])


def told_score(item: Mapping[str, Any]) -> str:
    """``accuracy 91.20% (89.1 to 93.0)``, or the score of amounts."""
    if item["interval"] is None:
        return f"{item['kind']} {item['score']:.4f}"
    low, high = item["interval"]
    return f"{item['kind']} {100 * item['score']:.2f}% ({100 * low:.2f} to {100 * high:.2f})"
