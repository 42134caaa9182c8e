"""What all experiments share: command-line options, training of a classifier, and pictures."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import edge_formats
import training
from public_data import Data

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "experiments"

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Experiment:
    """The options of a command.

    All output goes to ``folder``; with ``record``, results also go to ``examples/results`` and
    pictures to ``docs/experiments``. ``quick`` means little data, few epochs and two schemes, to
    test the script. ``command`` repeats the experiment.
    """

    name: str
    folder: Path
    quick: bool
    seed: int
    convert: bool
    record: bool
    command: str


def experiment(function: Callable[..., int]) -> click.Command:
    """Turn ``function(experiment, **own_options)`` into a command with the shared options."""
    name = Path(function.__code__.co_filename).stem

    @click.command(name, help=function.__doc__)
    @click.option("--quick", is_flag=True, help="Test the script in about a minute on little data.")
    @click.option("--seed", type=int, default=1, show_default=True, help="Random seed.")
    @click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, file_okay=False),
        help="Output folder; an unfinished experiment in it is resumed. "
        f"Default: .out/examples/{name}",
    )
    @click.option("--convert/--no-convert", default=True, help="Convert the trained model or stop.")
    @click.option("--record", is_flag=True, help="Also write the results to examples/results.")
    @functools.wraps(function)
    def command(
        quick: bool, seed: int, output: Path | None, convert: bool, record: bool, **own_options: Any
    ) -> None:
        if quick and record:
            raise click.UsageError("--record cannot be combined with --quick.")
        default = ROOT / ".out" / "examples" / (f"{name}-quick" if quick else name)
        folder = (output or default).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        options = Experiment(name, folder, quick, seed, convert, record, _command_line(name))
        sys.exit(function(options, **own_options))

    return command


def _command_line(name: str) -> str:
    """The current command, with PATH in place of paths."""
    context = click.get_current_context()
    arguments = ["python", f"examples/{name}.py"]
    for option in context.command.params:
        value = context.params.get(option.name or "")
        source = context.get_parameter_source(option.name or "")
        if source is not click.core.ParameterSource.COMMANDLINE or option.name in (
            "output",
            "convert",
        ):
            continue
        arguments.append(f"--{option.name}")
        if not isinstance(value, bool):
            arguments.append("PATH" if isinstance(value, Path) else str(value))
    return shlex.join(arguments)


data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    help="Local copy of the data: the file, or a folder that contains it. Default: download.",
)


def train_classifier(
    experiment: Experiment,
    build: Callable[[], keras.Model],
    data: Data,
    *,
    epochs: int,
    batch_size: int,
    quick_rows: int,
    classes: Sequence[str],
    calibration: int = 500,
) -> int:
    """Train a classifier, draw its attention by class, and evaluate it in the edge formats.

    The model of the last epoch is used, so that the test set has no influence on the choice.
    Returns the exit code of :func:`edge_formats.evaluate`.
    """
    if experiment.quick:
        data, epochs = data.subset(quick_rows, experiment.seed), 1
    train, test = (data.x, data.y), (data.x_test, data.y_test)
    history = training.train(
        build, experiment.folder / "training", train, test,
        training.Schedule(epochs, batch_size, experiment.seed), metric="accuracy",
    )  # fmt: skip
    model = keras.saving.load_model(experiment.folder / "training" / "last.keras")
    summary = training.summary(
        history, epochs - 1, data=data.source, rows=len(data.x), chosen="the last epoch"
    )
    _draw_classes(experiment, model, test, classes)
    return edge_formats.evaluate(
        experiment, model, train=train, test=test, summary=summary, calibration=calibration
    )


def _draw_classes(
    experiment: Experiment, model: keras.Model, test: Arrays, classes: Sequence[str]
) -> None:
    """Draw the mean attention over the test samples of every class."""
    from edgeattn import plots
    from edgeattn.layers import attention_maps

    maps, labels = attention_maps(model, test[0]), np.unique(test[1])
    means = np.stack([maps[test[1] == label].mean(axis=0) for label in labels])
    names = [classes[label] for label in labels]
    title = "Mean attention weight of each step, by class"
    steps = [str(step) for step in range(1, means.shape[1] + 1)]
    figure = plots.attention(means, tokens=steps, queries=names, title=title)
    figure.axes[0].set(xlabel="step", ylabel="")
    save_picture(experiment, figure)


def save_picture(experiment: Experiment, figure: Any) -> None:
    """Write ``attention.png``, and with ``--record`` the picture of the documentation."""
    from edgeattn import plots

    plots.save(figure, experiment.folder / "attention.png")
    if experiment.record:
        shutil.copyfile(experiment.folder / "attention.png", PICTURES / f"{experiment.name}.png")
