"""What the examples share: their options, the way to the edge formats, and the result's document.

An example trains a model into its folder and hands it to :func:`to_edge`, which runs the command
line as a user would: ``convert --scheme all --calibration``, ``bench``, and ``validate --data`` on
the whole test set with a report.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import training
from edgeattn import __version__
from outcomes import as_text, verdicts
from public_data import Data

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PICTURES = ROOT / "docs" / "experiments"
FORMATS = ("tflite", "onnx")
SCHEMES = ("float32", "float16", "dynamic_int8", "int8", "int16x8")
QUICK_SCHEMES = ("float32", "int8")
# From "passed" to "could not all be made": the command has answered. Anything else ends the run.
ANSWERED = (0, 1, 3, 6)

Rows = tuple[np.ndarray, np.ndarray]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Run:
    """What the command line asked for: ``folder`` takes all that is made.

    ``quick`` is for tests: little data, few epochs, two schemes, figures that mean nothing.
    ``record`` is whether the figures go to ``examples/results`` too, ``command`` what to type for
    the same again.
    """

    name: str
    folder: Path
    quick: bool
    seed: int
    convert: bool
    record: bool
    command: str


def example(function: Callable[..., int]) -> click.Command:
    """``function(run, **own options)`` as a command with the options that all examples have."""
    name = Path(function.__code__.co_filename).stem

    @click.command(name, help=function.__doc__)
    @click.option("--quick", is_flag=True, help="Try the script: under a minute, means nothing.")
    @click.option("--seed", type=int, default=1, show_default=True)
    @click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, file_okay=False),
        help=f"Takes all that is made; what is there is resumed. Default: .out/examples/{name}",
    )
    @click.option("--convert/--no-convert", default=True, help="Or end with the trained model.")
    @click.option("--record", is_flag=True, help="Write the figures to examples/results too.")
    @functools.wraps(function)
    def command(
        quick: bool, seed: int, output: Path | None, convert: bool, record: bool, **own: Any
    ) -> None:
        if quick and record:
            raise click.UsageError("--record is for the figures of a full run, not of --quick.")
        default = ROOT / ".out" / "examples" / (f"{name}-quick" if quick else name)
        folder = (output or default).absolute()
        run = Run(name, folder, quick, seed, convert, record, _typed(name))
        run.folder.mkdir(parents=True, exist_ok=True)
        sys.exit(function(run, **own))

    return command


def _typed(name: str) -> str:
    """The command that runs here, without the paths of this machine."""
    context = click.get_current_context()
    words = ["python", f"examples/{name}.py"]
    for option in context.command.params:
        value = context.params.get(option.name or "")
        source = context.get_parameter_source(option.name or "")
        if source is not click.core.ParameterSource.COMMANDLINE or option.name in (
            "output",
            "convert",
        ):
            continue
        words.append(f"--{option.name}")
        if not isinstance(value, bool):
            words.append("PATH" if isinstance(value, Path) else str(value))
    return shlex.join(words)


data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    help="A local copy of the data: the file, or a folder with it. Default: download it, checked.",
)


def learn(
    run: Run,
    build: Callable[[], keras.Model],
    data: Data,
    *,
    epochs: int,
    batch_size: int,
    quick_rows: int,
    classes: Sequence[str],
    calibration: int = 500,
) -> int:
    """Train a classifier for that many epochs, draw where it looks and bring it :func:`to_edge`.

    The last epoch's model is taken, whatever it scored: the test set chooses nothing.
    """
    if run.quick:
        data, epochs = data.some(quick_rows, run.seed), 1
    rows, test = (data.x, data.y), (data.x_test, data.y_test)
    history = training.train(
        build, run.folder / "training", rows, test,
        epochs=epochs, batch_size=batch_size, seed=run.seed, metric="accuracy",
    )  # fmt: skip
    model = keras.saving.load_model(run.folder / "training" / "last.keras")
    told = training.about(
        history, epochs - 1, data=data.source, rows=len(data.x), chosen="the last epoch"
    )
    draw_classes(run, model, test, classes)
    return to_edge(run, model, rows=rows, test=test, about=told, calibration=calibration)


def draw_classes(run: Run, model: keras.Model, test: Rows, classes: Sequence[str]) -> None:
    """Where the model looks in the test samples of each class, on average, as a picture."""
    from edgeattn import plots
    from edgeattn.layers import attention_maps

    maps, present = attention_maps(model, test[0]), np.unique(test[1])
    means = np.stack([maps[test[1] == number].mean(axis=0) for number in present])
    names = [classes[number] for number in present]
    title = "Mean attention over the steps, by class"
    steps = [str(step) for step in range(1, means.shape[1] + 1)]
    figure = plots.attention(means, tokens=steps, queries=names, title=title)
    figure.axes[0].set(xlabel="step", ylabel="")
    save_picture(run, figure)


def save_picture(run: Run, figure: Any) -> None:
    """``attention.png`` in the run's folder, and with ``--record`` in the documentation."""
    from edgeattn import plots

    plots.save(figure, run.folder / "attention.png")
    if run.record:
        shutil.copyfile(run.folder / "attention.png", PICTURES / f"{run.name}.png")


def to_edge(
    run: Run,
    model: keras.Model,
    *,
    rows: Rows,
    test: Rows,
    about: Mapping[str, Any],
    figures: Mapping[str, Any] | None = None,
    calibration: int = 500,
    samples: int = 64,
) -> int:
    """Convert ``model`` in all schemes, judge it on all of ``test``; the exit code of the verdict.

    ``calibration`` and ``samples`` rows are drawn from ``rows`` with the run's seed.
    ``about`` says how the model was trained, ``figures`` what else was measured; both go into the
    result's document as they are. Writes model.h5, model.edge, report.html and result.json.
    """
    folder = run.folder
    model.save(folder / "model.h5", include_optimizer=False)
    if not run.convert:
        click.echo(f"Wrote {folder / 'model.h5'}")
        return 0
    write_samples(run, rows[0], test[0], calibration, samples)
    np.savez(folder / "test.npz", x=test[0], y=test[1])

    bundle = folder / "model.edge"
    converted, timed, validated, code = _judged(run, bundle)
    result = {
        **_circumstances(run),
        "training": dict(about),
        "figures": dict(figures or {}),
        "parameters": model.count_params(),
        "model_bytes": (folder / "model.h5").stat().st_size,
        "verdict": validated["verdict"],
        **verdicts(converted, validated, timed),
    }
    write_json(folder / "result.json", result)
    if run.record:
        write_json(RESULTS / f"{run.name}.json", result)
    click.echo(as_text(result))
    click.echo(f"Report: {folder / 'report.html'}")
    return code


def _judged(run: Run, bundle: Path) -> tuple[Any, Any, Any, int]:
    """What ``convert``, ``bench`` and ``validate`` answer, and the exit code of the last."""
    folder = run.folder
    schemes = QUICK_SCHEMES if run.quick else ("all",)
    inputs = ("model.h5", "calibration.npz", "samples.npz")
    made_of = {name: sha256(folder / name) for name in inputs} | {"schemes": list(schemes)}
    made_of |= {"edgeattn": __version__}
    for made, answer in ((bundle, "converted.json"), (folder / "report.html", "validated.json")):
        if not made.exists():
            (folder / answer).unlink(missing_ok=True)
    converted, _ = kept(
        folder / "converted.json", made_of,
        lambda: edgeattn(
            "convert", folder / "model.h5", "-o", bundle, "--force",
            *(part for scheme in schemes for part in ("--scheme", scheme)),
            "--calibration", folder / "calibration.npz", "--samples", folder / "samples.npz",
        ),
    )  # fmt: skip
    made_of = {
        "bundle": sha256(bundle / "manifest.json"),
        "test.npz": sha256(folder / "test.npz"),
        "edgeattn": __version__,
    }
    timed, _ = kept(
        folder / "timed.json", made_of,
        lambda: edgeattn("bench", bundle, "--threads", 1, "--runs", 20 if run.quick else 300),
    )  # fmt: skip
    validated, code = kept(
        folder / "validated.json", made_of,
        lambda: edgeattn(
            "validate", bundle, "--data", folder / "test.npz",
            "--report", folder / "report.html",
            "--resume", "--resume-file", folder / f"unfinished-{made_of['bundle']}.npz",
        ),
    )  # fmt: skip
    return converted, timed, validated, code


def kept(path: Path, made_of: Any, make: Callable[[], Answer]) -> Answer:
    """The answer in ``path`` where it is one to the same question, ``made_of``; else a new one."""
    if path.exists():
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("made_of") == made_of:
            answer: Answer = document["answer"]
            return answer
    answer = make()
    write_json(path, {"made_of": made_of, "answer": answer})
    return answer


def sha256(path: Path) -> str:
    """A file's SHA-256, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def edgeattn(*arguments: object) -> tuple[dict[str, Any], int]:
    """What the command line answers with ``--json``, and its exit code; ends the run on errors."""
    words = [str(argument) for argument in arguments]
    click.echo(f"edgeattn {shlex.join(words)}", err=True)
    ended = subprocess.run(
        [sys.executable, "-m", "edgeattn", *words, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    document = json.loads(ended.stdout) if ended.stdout.strip() else {}
    if ended.returncode not in ANSWERED or "artifacts" not in document:
        click.echo(f"edgeattn {words[0]} ended with {ended.returncode}.", err=True)
        sys.exit(ended.returncode or 70)
    return document, ended.returncode


def write_json(path: Path, value: Any) -> None:
    """Write aside, then rename: never half a document."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"new-{path.name}")
    beside.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def write_samples(
    run: Run, x: np.ndarray, test: np.ndarray, calibration: int, samples: int
) -> None:
    """Training rows as samples.npz and calibration.npz, apart, and none that is tested on.

    Real data hold some rows in both sets; calibrated on, they would be left out of the test.
    """
    tested = {row.tobytes() for row in test}
    order = np.random.default_rng([run.seed, 77]).permutation(len(x))
    order = np.array([row for row in order if x[row].tobytes() not in tested])
    # The bundle's own samples are in the report and judge numbers: not those calibrated on.
    samples = min(samples, len(order) // 4)
    np.savez(run.folder / "samples.npz", x=x[order[:samples]])
    np.savez(run.folder / "calibration.npz", x=x[order[samples : samples + calibration]])


def _circumstances(run: Run) -> dict[str, Any]:
    versions = {
        "edgeattn": __version__,
        "python": platform.python_version(),
        "keras": keras.__version__,
    }
    return {
        "example": run.name,
        "command": run.command,
        "quick": run.quick,
        "seed": run.seed,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "backend": keras.backend.backend(),
        "versions": versions,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
