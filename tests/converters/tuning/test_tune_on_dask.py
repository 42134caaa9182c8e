"""``tune --scheduler``: the candidates of a search on this machine, from Dask workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dask_cluster import dask_cluster

DIGITS = Path(__file__).parents[3] / "sample_models" / "digits"

pytest.importorskip("distributed", reason="dask is not installed")


def test_raw_data_are_refused(tmp_path: Path, edgeattn: Callable[..., Any]) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_text("{}\n")
    result = edgeattn(
        "tune", DIGITS / "model.h5", "--raw-data", raw, "--scheduler", "tcp://127.0.0.1:9"
    )
    assert (result.code, "--scheduler has no effect with raw data" in result.err) == (2, True)


@pytest.mark.long
def test_the_candidates_are_those_of_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edgeattn: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model.h5", "samples.npz"):
        Path(name).write_bytes((DIGITS / name).read_bytes())
    command = ["tune", "model.h5", "--data", "samples.npz", "--format", "onnx", "--most", "2"]
    command += ["--scheme", "float32", "--scheme", "float16", "--json"]
    with dask_cluster(tmp_path / "cluster", 2) as dask:
        spread = edgeattn(*command, "--scheduler", dask.address, "-o", "spread.edge")
    alone = edgeattn(*command, "-o", "alone.edge")
    assert spread.code == alone.code, spread.err
    measured = ("p50_ms", "interval_ms", "unmeasured", "compared_with_fastest")
    tried = [
        [
            {key: value for key, value in entry.items() if key not in measured}
            for entry in result.document["tried"]
        ]
        for result in (spread, alone)
    ]
    assert tried[0] == tried[1]
    assert len(tried[0]) == 2
    files = [
        sorted(Path(name).rglob("*.onnx"))[0].read_bytes() for name in ("spread.edge", "alone.edge")
    ]
    assert files[0] == files[1]
