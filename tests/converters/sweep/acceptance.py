"""Sweep models in 5 schemes on Dask workers, kill one, and compare with an undisturbed sweep.

    make sweep [LIMIT=5] [FOLDER=PATH]

The models are the sample models, the specimens and, if present, those in ``../shared/models``. They
are calibrated on their samples or, without any, on small whole numbers, which fit every vocabulary.
The disturbed sweep runs on two workers of a Dask scheduler, the undisturbed one on this machine.
Both tables must have equal bytes. With FOLDER, plans, results and tables are kept there, and the
same command resumes a run that was cut.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[3]
FOLDERS = ("", "converters", "tests", "tests/converters", "tests/converters/loading")
sys.path[:0] = [str(ROOT / folder) for folder in FOLDERS]

from dask_cluster import DaskCluster, dask_cluster  # noqa: E402
from test_load_specimens import CUSTOM, architecture_of, stored_config  # noqa: E402

from edgeattn_converters.loading.stored_interface import input_specs  # noqa: E402

SPECIMENS = ROOT / "tests" / "specimens"
SHARED = ROOT.parent / "shared" / "models"
OPTIONS = 'schemes = ["float32", "float16", "dynamic_int8", "int8", "int16x8"]\n'
# Length of sequences of models that leave it free.
STEPS = 12
# Seconds between lines of progress, if there are more than SEVERAL models.
PROGRESS_S, SEVERAL = 30, 5


@dataclass(frozen=True)
class SweptModel:
    """A model of the plan; ``samples`` are inputs, from whose arrays labels are left out."""

    name: str
    path: Path
    samples: Path | None = None
    labels: tuple[str, ...] = ()

    def table(self, folder: Path) -> str:
        """The lines of the plan; samples to calibrate on are written to ``folder``."""
        calibration = folder / f"{self.name.replace('/', '.')}.npz"
        if not calibration.exists():
            np.savez(calibration, **self.inputs())
        values = {"path": self.path, "name": self.name, "calibration": calibration}
        if architecture := architecture_of(self.path):
            values["architecture"] = architecture
        if "custom_layer" in self.path.name:
            values["custom_objects"] = folder / "custom.py"
        return "\n".join(f'{key} = "{value}"' for key, value in values.items())

    def inputs(self) -> dict[str, np.ndarray]:
        """Samples to calibrate on, by input."""
        if self.samples is not None:
            with np.load(self.samples) as file:
                names = [name for name in file.files if not name.startswith(self.labels)]
                arrays = {name: file[name] for name in names}
            if "x_0" not in arrays:
                return arrays
            ordered = input_specs(stored_config(self.path), None) or ()
            return {spec.name: arrays[f"x_{number}"] for number, spec in enumerate(ordered)}
        specs = input_specs(stored_config(self.path), None)
        generator = np.random.default_rng(0)
        return {
            spec.name: generator.integers(
                0, 4, (40, *(axis or STEPS for axis in spec.shape[1:]))
            ).astype(spec.dtype)
            for spec in specs or ()
        }


def all_models() -> Iterator[SweptModel]:
    for path in sorted((ROOT / "sample_models").glob("*/model.h5")):
        samples = path.with_name("samples.npz")
        yield SweptModel(path.parent.name, path, samples if samples.exists() else None, ("y",))
    for entry in json.loads((SPECIMENS / "index.json").read_text()):
        yield SweptModel(
            entry["file"],
            SPECIMENS / entry["file"],
            SPECIMENS / entry["truth"],
            ("y", "attention"),
        )
    for path in sorted([*SHARED.glob("*.h5"), *SHARED.glob("*.keras")]):
        yield SweptModel(f"shared/{path.stem}", path)


def write_plan(folder: Path, models: Sequence[SweptModel], samples: Path, options: str) -> Path:
    folder.mkdir(exist_ok=True)
    plan = folder / "plan.toml"
    tables = "".join(f"\n[[models]]\n{model.table(samples)}\n" for model in models)
    text = f'results = "results"\n{options}{tables}'
    if plan.exists() and plan.read_text() != text:
        # That of a part of the models; their results are used again.
        table_of(plan).unlink(missing_ok=True)
    plan.write_text(text)
    return plan


def sweep(plan: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "edgeattn", "sweep", str(plan), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(command, env=environment)


def kill_a_worker(dask: DaskCluster, plan: Path, running: subprocess.Popen[bytes], at: int) -> int:
    """End a worker that has work when there are ``at`` results; its process number."""
    from distributed import Client

    while len(results_of(plan)) < at:
        if running.poll() is not None:
            raise SystemExit("The sweep ended before a worker was killed.")
        time.sleep(0.1)
    with Client(dask.address, set_as_default=False) as client:
        while not (busy := [name for name, keys in client.processing().items() if keys]):
            time.sleep(0.1)
        (pid,) = client.run(os.getpid, workers=busy[:1]).values()
    os.kill(pid, signal.SIGKILL)
    return int(pid)


def accepted(models: Sequence[SweptModel], folder: Path, options: str = OPTIONS) -> list[bytes]:
    """The tables of the disturbed and of the undisturbed sweep, which run side by side."""
    samples = folder / "samples"
    samples.mkdir(exist_ok=True)
    (samples / "custom.py").write_text(CUSTOM)
    plans = [write_plan(folder / name, models, samples, options) for name in ("killed", "whole")]
    with contextlib.ExitStack() as stack:
        disturbed = None
        if not table_of(plans[0]).exists():
            (folder / "cluster").mkdir(exist_ok=True)
            cluster = Path(tempfile.mkdtemp(dir=folder / "cluster")) / "dask"
            dask = stack.enter_context(dask_cluster(cluster, 2))
            disturbed = stack.enter_context(sweep(plans[0], "--scheduler", dask.address))
        undisturbed = stack.enter_context(sweep(plans[1], "--jobs", "1"))
        if disturbed is not None:
            # In the middle of those that remain.
            done = len(results_of(plans[0]))
            pid = kill_a_worker(dask, plans[0], disturbed, max(1, (done + len(models)) // 2))
            print(f"Worker {pid} was killed.", flush=True)
        sweeps = [running for running in (disturbed, undisturbed) if running is not None]
        while any(running.poll() is None for running in sweeps):
            counts = [len(results_of(plan)) for plan in plans]
            print(f"{time.strftime('%H:%M')} results of {len(models)}: {counts}", flush=True)
            time.sleep(PROGRESS_S if len(models) > SEVERAL else 1)
        for running in sweeps:
            if running.returncode not in (0, 1):
                raise SystemExit(f"{running.args} ended with exit code {running.returncode}.")
    return [table_of(plan).read_bytes() for plan in plans]


def results_of(plan: Path) -> list[Path]:
    return list((plan.parent / "results" / "results").glob("*.json"))


def table_of(plan: Path) -> Path:
    return plan.parent / "results" / "table.parquet"


def main() -> None:
    from edgeattn_converters.sweep.table import from_parquet

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, help="number of models, evenly chosen")
    parser.add_argument("--folder", type=Path, help="where to keep the results, and to resume")
    options = parser.parse_args()
    limit = options.limit
    models = list(all_models())
    if limit is not None:
        models = models[:: max(1, len(models) // limit)][:limit]
    with contextlib.ExitStack() as stack:
        if options.folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="edgeattn-sweep-")
            folder = Path(stack.enter_context(temporary))
        else:
            folder = options.folder.absolute()
            folder.mkdir(parents=True, exist_ok=True)
        killed, whole = accepted(models, folder)
    rows = from_parquet(whole)
    counts = Counter(row["verdict"] or row["status"] for row in rows)
    print(f"{len(models)} models, {len(rows)} rows: {dict(counts)}")
    if killed != whole:
        differing = [a for a, b in zip(from_parquet(killed), rows, strict=False) if a != b]
        raise SystemExit(f"The tables differ, first in {differing[:1]}")
    print("The table of the disturbed sweep is equal.")


if __name__ == "__main__":
    main()
