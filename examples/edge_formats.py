"""Evaluation of a trained model in the edge formats, with the commands of edgeattn.

:func:`evaluate` runs ``convert --scheme all --calibration``, ``bench``, and ``validate --data`` on
the whole test set, and writes the results as JSON.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import keras
import numpy as np

from edgeattn import __version__
from result_document import artifact_results, as_text

if TYPE_CHECKING:
    from experiment import Arrays, Experiment

RESULTS = Path(__file__).parent / "results"
QUICK_SCHEMES = ("float32", "int8")
# Exit codes with a result: pass, fail, some artifacts not converted, inconclusive.
EXIT_CODES = (0, 1, 3, 6)

Result = TypeVar("Result")


def evaluate(
    experiment: Experiment,
    model: keras.Model,
    *,
    train: Arrays,
    test: Arrays,
    summary: Mapping[str, Any],
    figures: Mapping[str, Any] | None = None,
    calibration: int = 500,
    samples: int = 64,
) -> int:
    """Convert ``model`` in all schemes and validate it on all of ``test``.

    Writes model.h5, model.edge, report.html and result.json. ``calibration`` and ``samples`` are
    numbers of rows drawn from ``train``. ``summary`` of the training and other ``figures`` are
    copied to result.json. Returns the exit code of ``validate``, or 0 with ``--no-convert``.
    """
    folder = experiment.folder
    model.save(folder / "model.h5", include_optimizer=False)
    if not experiment.convert:
        click.echo(f"Wrote {folder / 'model.h5'}")
        return 0
    write_samples(experiment, train[0], test[0], calibration, samples)
    np.savez(folder / "test.npz", x=test[0], y=test[1])

    converted, timed, validated, code = _run_commands(experiment, folder / "model.edge")
    result = {
        **_environment(experiment),
        "training": dict(summary),
        "figures": dict(figures or {}),
        "parameters": model.count_params(),
        "model_bytes": (folder / "model.h5").stat().st_size,
        "verdict": validated["verdict"],
        **artifact_results(converted, validated, timed),
    }
    write_json(folder / "result.json", result)
    if experiment.record:
        write_json(RESULTS / f"{experiment.name}.json", result)
    click.echo(as_text(result))
    click.echo(f"Report: {folder / 'report.html'}")
    return code


def _run_commands(experiment: Experiment, bundle: Path) -> tuple[Any, Any, Any, int]:
    """Run the commands, and return their JSON documents and the exit code of ``validate``.

    Documents of an earlier run are used if nothing that they depend on has changed.
    """
    folder = experiment.folder
    schemes = QUICK_SCHEMES if experiment.quick else ("all",)
    for output, document in ((bundle, "converted"), (folder / "report.html", "validated")):
        if not output.exists():
            (folder / f"{document}.json").unlink(missing_ok=True)
    inputs = ("model.h5", "calibration.npz", "samples.npz")
    converted, _ = cached(
        folder / "converted.json",
        {name: sha256(folder / name) for name in inputs}
        | {"schemes": list(schemes), "edgeattn": __version__},
        lambda: edgeattn(
            "convert", folder / "model.h5", "-o", bundle, "--force",
            *(argument for scheme in schemes for argument in ("--scheme", scheme)),
            "--calibration", folder / "calibration.npz", "--samples", folder / "samples.npz",
        ),
    )  # fmt: skip
    dependencies = {
        "bundle": sha256(bundle / "manifest.json"),
        "test.npz": sha256(folder / "test.npz"),
        "edgeattn": __version__,
    }
    timed, _ = cached(
        folder / "timed.json", dependencies,
        lambda: edgeattn(
            "bench", bundle, "--threads", 1, "--runs", 20 if experiment.quick else 300
        ),
    )  # fmt: skip
    validated, code = cached(
        folder / "validated.json", dependencies,
        lambda: edgeattn(
            "validate", bundle, "--data", folder / "test.npz",
            "--report", folder / "report.html",
            "--resume", "--resume-file", folder / f"unfinished-{dependencies['bundle']}.npz",
        ),
    )  # fmt: skip
    return converted, timed, validated, code


def cached(path: Path, dependencies: Any, compute: Callable[[], Result]) -> Result:
    """The result stored in ``path`` if its dependencies are the same, else a new one."""
    if path.exists():
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("dependencies") == dependencies:
            stored: Result = document["result"]
            return stored
    result = compute()
    write_json(path, {"dependencies": dependencies, "result": result})
    return result


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def edgeattn(*arguments: object) -> tuple[dict[str, Any], int]:
    """Run a command with ``--json``: its document and exit code. Exits if the command failed."""
    command = [str(argument) for argument in arguments]
    click.echo(f"edgeattn {shlex.join(command)}", err=True)
    ended = subprocess.run(
        [sys.executable, "-m", "edgeattn", *command, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    document = json.loads(ended.stdout) if ended.stdout.strip() else {}
    if ended.returncode not in EXIT_CODES or "artifacts" not in document:
        click.echo(f"edgeattn {command[0]} failed with exit code {ended.returncode}.", err=True)
        sys.exit(ended.returncode or 70)
    return document, ended.returncode


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document, replacing an existing one only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"new-{path.name}")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def write_samples(
    experiment: Experiment, x: np.ndarray, test: np.ndarray, calibration: int, samples: int
) -> None:
    """Draw rows of ``x`` for samples.npz and calibration.npz.

    Some rows of real data are also in ``test``. They are not used, because ``validate`` excludes
    calibration samples from the test.
    """
    test_rows = {row.tobytes() for row in test}
    order = np.random.default_rng([experiment.seed, 77]).permutation(len(x))
    order = np.array([row for row in order if x[row].tobytes() not in test_rows])
    # No sample of the reference is used for calibration.
    samples = min(samples, len(order) // 4)
    np.savez(experiment.folder / "samples.npz", x=x[order[:samples]])
    np.savez(experiment.folder / "calibration.npz", x=x[order[samples : samples + calibration]])


def _environment(experiment: Experiment) -> dict[str, Any]:
    versions = {
        "edgeattn": __version__,
        "python": platform.python_version(),
        "keras": keras.__version__,
    }
    return {
        "example": experiment.name,
        "command": experiment.command,
        "quick": experiment.quick,
        "seed": experiment.seed,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "backend": keras.backend.backend(),
        "versions": versions,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
