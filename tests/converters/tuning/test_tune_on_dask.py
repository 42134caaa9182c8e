"""``tune --scheduler``: the candidates of a search on this machine, from Dask workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dask_cluster import dask_cluster

from edgeattn.errors import UsageError
from edgeattn_converters.options import ModelSource

DIGITS = Path(__file__).parents[3] / "sample_models" / "digits"

pytest.importorskip("distributed", reason="dask is not installed")


def test_raw_data_are_refused(tmp_path: Path, edgeattn: Callable[..., Any]) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_text("{}\n")
    result = edgeattn(
        "tune", DIGITS / "model.h5", "--raw-data", raw, "--scheduler", "tcp://127.0.0.1:9"
    )
    assert (result.code, "--scheduler has no effect with raw data" in result.err) == (2, True)


def test_workers_get_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their working folder is another one; paths of some files were relative."""
    from edgeattn_converters.tuning import spread

    monkeypatch.chdir(tmp_path)
    names = [item.name for item in dataclasses.fields(ModelSource) if "StrPath" in str(item.type)]
    source = ModelSource(**{name: f"{name}.x" for name in names}, architecture="a.py:build")
    evaluator: Any = SimpleNamespace(
        source=source, calibration="c.npz", manifest=None, dataset=None, limits=()
    )
    candidate: Any = None
    request = spread._request(evaluator, candidate, ())
    assert request.calibration == str(tmp_path / "c.npz")
    assert request.source.architecture == str(tmp_path / "a.py:build")
    for name in names:
        assert getattr(request.source, name) == str(tmp_path / f"{name}.x")
    for name in (*names, "a.py", "c.npz"):
        with pytest.raises(UsageError, match="has no file"):
            spread.evaluate_request(request)
        (tmp_path / (name if "." in name else f"{name}.x")).touch()
    assert spread._missing_file(request) is None


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
        shared = edgeattn(*command, "--scheduler", dask.address, "-o", "spread.edge")
    alone = edgeattn(*command, "-o", "alone.edge")
    assert shared.code == alone.code, shared.err
    measured = ("p50_ms", "interval_ms", "unmeasured", "compared_with_fastest")
    tried = [
        [
            {key: value for key, value in entry.items() if key not in measured}
            for entry in result.document["tried"]
        ]
        for result in (shared, alone)
    ]
    assert tried[0] == tried[1]
    assert len(tried[0]) == 2
    files = [
        sorted(Path(name).rglob("*.onnx"))[0].read_bytes() for name in ("spread.edge", "alone.edge")
    ]
    assert files[0] == files[1]
