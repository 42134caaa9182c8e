"""Sweeps on the workers of a Dask scheduler, some of which die."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dask_cluster import dask_cluster

from sweep.sweeps import LUONG, WORDS, write_plan

pytest.importorskip("fsspec")
pytest.importorskip("pyarrow")
pytest.importorskip("distributed", reason="dask is not installed")

from edgeattn_converters.sweep.table import from_parquet

OPTIONS = 'schemes = ["float32"]\nformats = ["tflite"]\n'
PRELOADS = Path(__file__).parent


def test_a_scheduler_that_does_not_respond(tmp_path: Path, edgeattn: Callable[..., Any]) -> None:
    from edgeattn.cluster import scheduler

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "CONNECT_S", 1)
        plan = write_plan(tmp_path, f'path = "{LUONG}"')
        result = edgeattn("sweep", plan, "--scheduler", "tcp://127.0.0.1:9")
        assert (result.code, "does not respond" in result.err) == (5, True), result.err
        result = edgeattn("sweep", plan, "--scheduler", "nowhere://x")
        assert (result.code, "tcp://HOST:8786" in result.err) == (2, True), result.err
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]


@pytest.mark.long
def test_workers_that_die(tmp_path: Path, edgeattn: Callable[..., Any]) -> None:
    """One model kills every worker, another only the first; the others lose and repeat nothing."""
    for name in ("poison", "once", "good", "fine"):
        (tmp_path / f"{name}.h5").write_text(name)
    tables = [f'path = "{name}.h5"' for name in ("poison", "once", "good", "fine")]
    plan = write_plan(tmp_path, *tables, options=OPTIONS)
    with dask_cluster(tmp_path / "cluster", 2, PRELOADS / "dying_worker.py") as dask:
        address = dask.address
        result = edgeattn("sweep", plan, "--scheduler", address, "--json")
        assert result.code == 1, result.err
        assert (result.document["done"], result.document["rows"]) == (4, 4)
        rows = from_parquet((tmp_path / "results" / "table.parquet").read_bytes())
        assert [(row["model"], row["status"]) for row in rows] == [
            ("poison", "failed"),
            *((name, "converted") for name in ("once", "good", "fine")),
        ]
        assert rows[0]["reason"] == ("Every worker that ran this died, also when nothing else ran.")
        again = edgeattn("sweep", plan, "--scheduler", address, "--json")
        assert (again.code, again.document["done"], again.document["rows"]) == (1, 0, 4)
    attempts = (tmp_path / "results" / "attempts").read_text().split()
    # Another attempt may have run on a worker that the other model ended.
    assert attempts.count("once") >= 2
    assert attempts.count("poison") >= 4


@pytest.mark.long
def test_a_sweep_that_is_killed_resumes(tmp_path: Path, edgeattn: Callable[..., Any]) -> None:
    models = [f'path = "{LUONG}"', f'path = "{WORDS}"\ntime_steps = 7']
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
        write_plan(tmp_path / name, *models, options=OPTIONS)
    results = tmp_path / "killed" / "results" / "results"
    command = [sys.executable, "-P", "-m", "edgeattn", "sweep", "plan.toml", "--jobs", "1"]
    with subprocess.Popen(command, cwd=tmp_path / "killed") as running:
        end = time.monotonic() + 300
        while not list(results.glob("*.json")):
            assert time.monotonic() < end
            assert running.poll() is None
            time.sleep(0.05)
        running.kill()
    assert not (tmp_path / "killed" / "results" / "table.parquet").exists()
    first = {path.name: path.read_bytes() for path in results.glob("*.json")}
    resumed = edgeattn("sweep", tmp_path / "killed" / "plan.toml", "--json")
    assert (resumed.code, resumed.document["done"]) == (0, 2 - len(first))
    assert {name: (results / name).read_bytes() for name in first} == first
    assert edgeattn("sweep", tmp_path / "whole" / "plan.toml").code == 0
    tables = [
        (tmp_path / name / "results" / "table.parquet").read_bytes() for name in ("killed", "whole")
    ]
    assert tables[0] == tables[1]
    assert json.loads(next(iter(first.values())))["status"] == "converted"


@pytest.mark.long
def test_conversions_whose_workers_die(tmp_path: Path, edgeattn: Callable[..., Any]) -> None:
    """The table is that of an undisturbed sweep; one that always ends its worker gets a row."""
    (tmp_path / "poison.h5").write_bytes(LUONG.read_bytes())
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, 7, 2)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=inputs, y=rng.normal(size=(40, 11)))
    good = f'path = "{LUONG}"\nname = "good"\ndata = ["{tmp_path}/data.npz"]'
    once = f'path = "{WORDS}"\nname = "once"\ntime_steps = 7'
    for name in ("disturbed", "undisturbed"):
        (tmp_path / name).mkdir()
        write_plan(tmp_path / name, good, once, options=OPTIONS)
    plan, table = tmp_path / "disturbed" / "plan.toml", Path("results", "table.parquet")
    with dask_cluster(tmp_path / "cluster", 2, PRELOADS / "dying_conversion.py") as dask:
        result = edgeattn("sweep", plan, "--scheduler", dask.address, "--json")
        assert (result.code, result.document["done"]) == (0, 2), result.err
        attempts = (plan.parent / "results" / "attempts").read_text().split()
        assert sorted(attempts) == ["good", "once", "once"]
        assert edgeattn("sweep", tmp_path / "undisturbed" / "plan.toml").code == 0
        tables = [(tmp_path / name / table).read_bytes() for name in ("disturbed", "undisturbed")]
        assert tables[0] == tables[1]
        # Equal bytes, so a hash or an error that differs would show.
        rows = from_parquet(tables[0])
        assert [(row["model"], row["status"]) for row in rows] == [
            ("good", "converted"),
            ("once", "converted"),
        ]
        write_plan(plan.parent, good, f'path = "{tmp_path}/poison.h5"', once, options=OPTIONS)
        poisoned = edgeattn("sweep", plan, "--scheduler", dask.address, "--json")
        assert (poisoned.code, poisoned.document["done"]) == (1, 1), poisoned.err
    good_row, poison_row, once_row = from_parquet((plan.parent / table).read_bytes())
    assert [good_row, once_row] == rows
    assert (poison_row["status"], poison_row["verdict"]) == ("failed", None)
    assert "Every worker that ran this died" in poison_row["reason"]
    assert not list((plan.parent / "results").rglob(".*.edgeattn"))


@pytest.mark.long
def test_the_acceptance_sweep_with_two_models(tmp_path: Path) -> None:
    """``make sweep`` does this with all models."""
    from sweep.acceptance import SweptModel, accepted

    models = [
        SweptModel("luong", LUONG, LUONG.with_suffix(".npz"), ("y", "attention")),
        SweptModel("words", WORDS, WORDS.with_suffix(".npz"), ("y", "attention")),
    ]
    options = 'schemes = ["float32", "int8"]\nformats = ["onnx"]\n'
    killed, whole = accepted(models, tmp_path, options)
    assert killed == whole
    assert {row["model"] for row in from_parquet(whole)} == {"luong", "words"}
