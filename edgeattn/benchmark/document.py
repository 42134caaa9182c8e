"""The document that ``edgeattn bench --json`` prints, read again by ``edgeattn validate``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.errors import UsageError

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact

HINT = "Write one with: edgeattn bench BUNDLE --json > bench.json"
COLUMNS = ("p50_ms", "p90_ms", "p99_ms", "load_ms")
# Medians in milliseconds by number of threads.
Medians = dict[int, float]


def read_bench(path: Path) -> Mapping[str, Any]:
    """Read a file that ``edgeattn bench --json`` printed.

    Raises :class:`UsageError` if the file cannot be read or holds something else.
    """
    try:
        document: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
        for item in document["artifacts"]:
            _ = (item["format"], item["scheme"], item["runs"])
            if type(item["threads"]) is not int or item["threads"] < 1:
                raise ValueError("the number of threads is not positive")
            if not all(_is_latency(item.get(name)) for name in COLUMNS):
                raise ValueError("a latency is not a positive number")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint=HINT) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not the JSON output of edgeattn bench.", hint=HINT) from error
    return document


def _is_latency(value: object) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value < math.inf)  # type: ignore[operator]


def read_bench_of(path: Path, artifacts: Sequence[Artifact]) -> Mapping[str, Any]:
    """:func:`read_bench` of a file with latencies of at least one of ``artifacts``.

    Raises :class:`UsageError` if it has none, or those of another file than an artifact.
    """
    document = read_bench(path)
    by_label = {(item.format, item.scheme): item for item in artifacts}
    measured = False
    for item in document["artifacts"]:
        artifact = by_label.get((item["format"], item["scheme"]))
        measured = measured or artifact is not None
        # Documents of earlier versions have no hash.
        if artifact is not None and item.get("sha256", artifact.sha256) != artifact.sha256:
            raise UsageError(
                f"{path.name} has the latency of another {artifact.label} file than the bundle: "
                "the SHA-256 differs.",
                hint="Measure again with: edgeattn bench BUNDLE --json > bench.json",
            )
    if not measured:
        raise UsageError(
            f"{path.name} has no latencies of the selected artifacts.",
            hint="Measure them with: edgeattn bench BUNDLE --json > bench.json",
        )
    return document


def medians(document: Mapping[str, Any], artifact: Artifact) -> Medians:
    """The median latencies of ``artifact``; empty if it was not measured."""
    return {
        int(item["threads"]): float(item["p50_ms"])
        for item in document["artifacts"]
        if (item["format"], item["scheme"]) == (artifact.format, artifact.scheme)
        and item.get("p50_ms") is not None
    }


def place(document: Mapping[str, Any]) -> str:
    """The machine on which the latencies were measured, in words."""
    target = document.get("place", "here")
    if target != "here":
        return str(target)
    # Documents of earlier versions do not describe the machine.
    return str(document.get("machine") or "the machine that ran edgeattn bench")


def same_place(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two documents may be measurements on one machine, as far as they name it."""
    places = {str(item.get("place", "here")) for item in (one, other)}
    machines = {str(item["machine"]) for item in (one, other) if item.get("machine")}
    return len(places) == 1 and (places != {"here"} or len(machines) <= 1)
