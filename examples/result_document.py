"""The results of an experiment, from the JSON of ``convert``, ``validate`` and ``bench``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

# 97.5% quantile of the normal distribution, for 95% intervals.
Z = 1.959964
# Type of the weights by scheme; int8 for all others.
WEIGHT_TYPES = {"float32": "float32", "float16": "float16", "int4": "int4"}
MAP_METRICS = ("max_abs_error", "jensen_shannon", "argmax_stability")


def artifact_results(
    converted: Mapping[str, Any], validated: Mapping[str, Any], timed: Mapping[str, Any]
) -> dict[str, Any]:
    """The score of Keras, the results of every artifact, and the failed conversions."""
    conversions = {_key(item): item for item in converted["artifacts"]}
    times = {_key(item): item["p50_ms"] for item in timed["artifacts"]}
    base_time = times.get(("tflite", "float32")) or times.get(("onnx", "float32"))
    results, keras = [], None
    for item in validated["artifacts"]:
        conversion = conversions[_key(item)]
        task = item["task"] or {}
        output = (task.get("outputs") or [None])[0]
        if output is not None and keras is None:
            keras = _score(output, output["reference"])
        time = times.get(_key(item))
        results.append(
            {
                "format": item["format"],
                "scheme": item["scheme"],
                "runtime": item["runtime"],
                "bytes": conversion["bytes"],
                "verdict": item["verdict"],
                "stages": item["stages"],
                **({"score": None} if output is None else _score(output, output["artifact"])),
                "drop": output and output["drop"],
                "drop_interval": output and output["interval"],
                "attention": _worst_map_metrics(item["checks"]),
                "latency_ratio": time / base_time if time and base_time else None,
                **_achieved(item["scheme"], conversion["achieved"]),
                "notes": list(task.get("notes", [])),
                "failed": [
                    f"{check['metric']} {check['value']:.3g}, limit {check['limit']:.3g}"
                    for check in item["checks"]
                    if check["passed"] is False
                ],
            }
        )
    return {"keras": keras, "artifacts": results, "failures": converted["failures"]}


def _achieved(scheme: str, achieved: Mapping[str, Any]) -> dict[str, Any]:
    """The share of weights in the type of the scheme, and the number of float32 operators."""
    kind, weights = WEIGHT_TYPES.get(scheme, "int8"), achieved.get("weights") or {}
    counts = {
        name: sum(operators.values())
        for name, operators in (achieved.get("computes_in") or {}).items()
    }
    count, total = sum(weights.values()), sum(counts.values())
    return {
        "weights": {
            "type": kind,
            "percent": round(100 * weights.get(kind, 0) / count),
            "count": count,
        }
        if count
        else None,
        "operators": {"float32": counts.get("float32", 0), "total": total} if total else None,
    }


def _score(output: Mapping[str, Any], value: float) -> dict[str, Any]:
    is_share = output["score"] == "accuracy"
    return {
        "kind": output["score"],
        "score": value,
        "interval": list(wilson(value, output["samples"])) if is_share else None,
        "samples": output["samples"],
    }


def _worst_map_metrics(checks: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """The worst values over all attention maps."""
    values: dict[str, list[float]] = {}
    for check in checks:
        if check["stage"] == "attention" and check["metric"] in MAP_METRICS:
            values.setdefault(check["metric"], []).append(float(check["value"]))
    return {k: (min if k == "argmax_stability" else max)(v) for k, v in values.items()} or None


def _key(item: Mapping[str, Any]) -> tuple[str, str]:
    return item["format"], item["scheme"]


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95% score interval of a share of ``count`` samples (Wilson 1927)."""
    center = share + Z**2 / (2 * count)
    margin = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    scale = 1 + Z**2 / count
    return (center - margin) / scale, (center + margin) / scale


def as_text(result: Mapping[str, Any]) -> str:
    """The results as a table for the terminal."""
    keras = result["keras"]
    lines = [f"{result['example']}: {result['parameters']:,} parameters", ""]
    if keras is not None:
        lines += [f"Keras: {_score_text(keras)} on {keras['samples']:,} test samples", ""]
    for item in result["artifacts"]:
        score = "task not run" if item["score"] is None else _score_text(item)
        lines.append(
            f"{item['format']:7}{item['scheme']:13}{item['bytes']:>10,} bytes  {item['verdict']:13}"
            f"{score}"
        )
    lines += [f"{f['format']} {f['scheme']}: {f['reason']}" for f in result["failures"]]
    return "\n".join([*lines, "", f"Verdict: {result['verdict']}"])


def _score_text(item: Mapping[str, Any]) -> str:
    """``accuracy 91.20% (89.1 to 93.0)`` or ``r2 0.9866``."""
    if item["interval"] is None:
        return f"{item['kind']} {item['score']:.4f}"
    low, high = item["interval"]
    return f"{item['kind']} {100 * item['score']:.2f}% ({100 * low:.2f} to {100 * high:.2f})"
