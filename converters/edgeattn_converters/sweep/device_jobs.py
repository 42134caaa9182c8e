"""The passing artifacts of a sweep, measured and validated on a board: jobs, rows and the table.

All passing artifacts of a model and target are one job, because latencies are compared only if they
were measured together.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.benchmark.board import BoardAddress, cool_down, open_board
from edgeattn.bundle.bundle import Bundle
from edgeattn.metrics.medians import FASTEST, NO_DIFFERENCE, SLOWER, fastest_indices
from edgeattn.metrics.verdict import PASS
from edgeattn.version import __version__
from edgeattn_converters.sweep.store import Store

if TYPE_CHECKING:
    from edgeattn_converters.sweep.table import Row

TABLE = "devices.parquet"
COLUMNS = (
    *("device", "board", "model", "target", "lowering", "format", "scheme", "bundle", "path"),
    *("sha256", "verdict", "runtime", "p50_ms", "low_ms", "high_ms", "latency", "reason"),
)
NUMBERS = ("p50_ms", "low_ms", "high_ms")


def jobs_for(rows: Sequence[Row], devices: Sequence[str], results: str) -> list[dict[str, Any]]:
    """A job for each device, model and target, with the artifacts that pass on all datasets."""
    groups: dict[tuple[str, str | None], dict[tuple[str, str], list[Row]]] = {}
    for row in rows:
        if row.get("path") is not None and row.get("bundle") is not None:
            files = groups.setdefault((row["model"], row["target"]), {})
            files.setdefault((row["bundle"], row["path"]), []).append(row)
    jobs = []
    for device in devices:
        for (model, target), files in groups.items():
            names = ("model", "target", "lowering", "format", "scheme", "bundle", "path", "sha256")
            passing = [
                {name: same[0][name] for name in names}
                for same in files.values()
                if all(row["verdict"] == PASS for row in same)
            ]
            if passing:
                job = {"device": device, "artifacts": passing, "edgeattn": __version__}
                text = json.dumps({"kind": "device", **job}, sort_keys=True)
                key = hashlib.sha256(text.encode()).hexdigest()
                label = " ".join(filter(None, (model, target, f"on {device}")))
                jobs.append({**job, "key": key, "label": label, "results": results})
    return jobs


def measured_rows(job: Mapping[str, Any], address: BoardAddress) -> list[Row]:
    """Measure and validate the artifacts of a job on a board.

    Raises :class:`DeviceError` if the board fails.
    """
    store = Store(job["results"])
    cool_down(address)
    with tempfile.TemporaryDirectory(prefix="edgeattn-boards-") as name:
        folder = Path(name)
        bundles: dict[str, Bundle] = {}
        artifacts, files = [], {}
        for item in job["artifacts"]:
            key = item["bundle"].removeprefix("bundles/").removesuffix(".edge")
            if key not in bundles:
                bundles[key] = Bundle.open(store.read_bundle(key, folder))
            (artifact,) = bundles[key].select((item["format"],), (item["scheme"],))
            path = f"{key}.edge/{artifact.path}"
            files[path] = artifact.sha256
            artifacts.append((key, artifact, replace(artifact, path=path)))
        reference = next(iter(bundles.values())).reference()
        inputs = {k: array for k, array in reference.items() if k.startswith("input/")}
        with open_board(address, folder, files) as board:
            latencies = board.compare([renamed for _, _, renamed in artifacts], inputs)
            reports = {
                (key, item.artifact.path): item
                for key, bundle in bundles.items()
                for item in board.inside(f"{key}.edge")
                .validate(bundle, tuple(a for k, a, _ in artifacts if k == key))
                .artifacts
            }
    passing = [reports[key, artifact.path].verdict == PASS for key, artifact, _ in artifacts]
    places = _places(
        [item.estimate if ok else None for item, ok in zip(latencies, passing, strict=True)]
    )
    rows = []
    for (key, artifact, _), item, latency, place in zip(
        artifacts, job["artifacts"], latencies, places, strict=True
    ):
        report = reports[key, artifact.path]
        middle, low, high = latency.estimate or (None, None, None)
        rows.append(
            {
                **item,
                "device": job["device"],
                "board": address.destination,
                "verdict": report.verdict,
                "runtime": latency.runtime or report.runtime,
                "p50_ms": middle,
                "low_ms": low,
                "high_ms": high,
                "latency": place,
                "reason": latency.reason or report.shortcoming,
            }
        )
    return rows


def _places(estimates: Sequence[tuple[float, float, float] | None]) -> list[str | None]:
    """How each latency compares with the fastest; None for None."""
    known = {k: estimate for k, estimate in enumerate(estimates) if estimate is not None}
    group = {list(known)[k] for k in fastest_indices(list(known.values()))}
    first = FASTEST if len(group) == 1 else NO_DIFFERENCE
    return [
        None if estimate is None else first if k in group else SLOWER
        for k, estimate in enumerate(estimates)
    ]


def to_parquet(rows: Sequence[Row]) -> bytes:
    """The rows as a Parquet file; equal rows give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [(name, pa.float64() if name in NUMBERS else pa.string()) for name in COLUMNS]
    )
    file = io.BytesIO()
    table = pa.Table.from_pylist([{n: row.get(n) for n in COLUMNS} for row in rows], schema)
    pq.write_table(table, file)
    return file.getvalue()
