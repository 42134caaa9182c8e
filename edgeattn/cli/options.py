"""Options that several commands share.

Options that belong together are one decorator, which passes one object to the command:

    @options.artifact_selection
    def command(bundle: Path, selection: options.ArtifactSelection) -> int:
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from edgeattn.api import arguments
from edgeattn.api.arguments import ALL
from edgeattn.api.input_sizes import joined_lengths
from edgeattn.cli.values import INPUT_SHAPE, TIME_STEPS, Choice, FilePath, Integer, Number
from edgeattn.errors import UsageError
from edgeattn.process.limits import SECONDS, limited_to, run_limits
from edgeattn.schemes import EXPERIMENTAL, FORMATS, MAX_DROP, SCHEMES

PATH = FilePath(path_type=Path)
ArtifactSelection = arguments.ArtifactSelection
ModelLoading = arguments.ModelLoading
TargetOptions = arguments.TargetOptions
open_bundle = arguments.open_bundle
empty_if_all = arguments.empty_if_all
# MiB, for the runtime itself.
MIN_MEMORY = 256


def _option_group(name: str, group: type, *decorators: Callable[[Any], Any]) -> Callable[..., Any]:
    """A decorator that adds click options and passes them to the command as one argument.

    The options must have the names of fields of the dataclass ``group``.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_group(**values: Any) -> Any:
            members = {
                field.name: values.pop(field.name)
                for field in fields(group)
                if field.name in values
            }
            return command(**values, **{name: group(**members)})

        decorated: Callable[..., Any] = with_group
        for decorator in reversed(decorators):
            decorated = decorator(decorated)
        return decorated

    return decorate


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print a single JSON document on stdout."
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print results only.")
ignore_option = click.option(
    "--ignore",
    metavar="ARRAY",
    multiple=True,
    help="Array in the files of samples to leave out; repeatable. Other unused arrays are errors.",
)
formats_option = click.option(
    "--format",
    "formats",
    type=Choice([*FORMATS, ALL]),
    multiple=True,
    help="File format; repeatable. Default: all.",
)
raw_data_option = click.option(
    "--raw-data",
    type=PATH,
    help="Raw dataset instead of --data, which the front end prepares (.jsonl or .npz).",
)
raw_calibration_option = click.option(
    "--raw-calibration",
    type=PATH,
    help="Raw inputs for calibration, which the front end prepares.",
)
threads_option = click.option(
    "--threads",
    type=Integer(min=1),
    default=1,
    show_default=True,
    help="Threads of the runtime.",
)


def max_drop_option(limited: str) -> Callable[[Any], Any]:
    """``--max-drop``; ``limited`` is what it limits, for the help."""
    return click.option(
        "--max-drop",
        type=Number(0, 1, min_open=True, max_open=True),
        default=MAX_DROP,
        show_default=True,
        help=f"Largest accepted {limited}, at 95% confidence: 0.02 is two percentage points.",
    )


def _limit(name: str, unit: float) -> Callable[[click.Context, click.Parameter, Any], None]:
    """A callback that sets a field of the limits of runtimes until the command ends."""

    def set_limit(context: click.Context, _: click.Parameter, value: float | None) -> None:
        if value is not None:
            number: Any = value if unit == 1 else int(value * unit)
            context.with_resource(limited_to(replace(run_limits(), **{name: number})))

    return set_limit


def limits_options(timeout_help: str, memory_help: str) -> Callable[[Any], Any]:
    """``--timeout`` and ``--memory``, which apply without a parameter of the command."""
    timeout = click.option(
        "--timeout",
        type=Number(min=0, min_open=True),
        metavar="SECONDS",
        default=SECONDS,
        show_default=True,
        expose_value=False,
        callback=_limit("seconds", 1),
        help=timeout_help,
    )
    memory = click.option(
        "--memory",
        type=Number(min=MIN_MEMORY),
        metavar="MIB",
        expose_value=False,
        callback=_limit("memory", 2**20),
        help=f"{memory_help} Default: that of the machine.",
    )
    return lambda command: timeout(memory(command))


run_limits_options = limits_options(
    "Time limit for a runtime to load a file, and to run one batch of samples.",
    "Memory limit of each process that runs an artifact.",
)


def schemes_option(help: str) -> Callable[[Any], Any]:
    return click.option(
        "--scheme",
        "schemes",
        type=Choice([*SCHEMES, *EXPERIMENTAL, ALL]),
        multiple=True,
        help=help,
    )


artifact_selection = _option_group(
    "selection",
    ArtifactSelection,
    formats_option,
    schemes_option("Precision scheme; repeatable. Default: all in the bundle."),
)


_LOADING = (
    click.option("--custom-objects", type=PATH, help=".py file that defines custom layers."),
    click.option(
        "--architecture",
        metavar="FILE.json|FILE.py:FUNCTION",
        help="Architecture, for a file that contains weights only.",
    ),
    click.option(
        "--signature",
        metavar="NAME",
        help="Signature of a SavedModel folder. Default: its Keras layers, or else "
        "serving_default, or the only signature.",
    ),
    click.option(
        "--trust",
        metavar="SHA256",
        help="Lift the size limits for the file with this hash, and let --custom-objects replace "
        "code in it, which is never run.",
    ),
)
model_loading = _option_group("loading", ModelLoading, *_LOADING)


def _model_source(
    time_steps: Callable[[Any], Any], *more: Callable[[Any], Any]
) -> Callable[..., Any]:
    samples = click.option(
        "--samples",
        type=PATH,
        help="Real inputs for the reference: .npz, .npy or .csv. Default: some of --calibration, "
        "or else generated inputs.",
    )
    return _option_group(
        "loading",
        ModelLoading,
        samples,
        time_steps,
        _INPUT_SHAPES,
        ignore_option,
        *more,
        *_LOADING,
    )


def _lengths(_: click.Context, __: click.Parameter, values: Any) -> Any:
    return joined_lengths(values)


def _one_length(_: click.Context, __: click.Parameter, values: Any) -> Any:
    lengths = joined_lengths(values)
    if len(lengths) > 1:
        raise UsageError(
            f"--time-steps names {len(lengths)} sequence lengths, and the command accepts one.",
            hint="Pass --time-steps once, or once for each input: --time-steps INPUT=N",
        )
    return lengths[0] if lengths else None


def _shapes(_: click.Context, __: click.Parameter, values: Any) -> Any:
    names = [name for name, _ in values]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"--input-shape names two shapes of {name}.", hint="Pass one for each input."
            )
    return dict(values) or None


_INPUT_SHAPES = click.option(
    "--input-shape",
    "input_shapes",
    type=INPUT_SHAPE,
    metavar="INPUT=AxB...",
    multiple=True,
    callback=_shapes,
    help="Shape of an input without the batch axis, if the model leaves several axes free: "
    "image=64x64x3; repeatable, for each input.",
)


_FRONT_END = (
    click.option(
        "--raw-samples",
        type=PATH,
        help="Raw inputs for the reference: .txt, .csv, .wav, .npz or .npy.",
    ),
    click.option(
        "--preprocess", type=PATH, help=".toml file that describes the steps from raw input."
    ),
    click.option("--labels", type=PATH, help="Text file of labels: one per line and class."),
)
model_source = _model_source(
    click.option(
        "--time-steps",
        type=TIME_STEPS,
        metavar="N|INPUT=N,...",
        multiple=True,
        callback=_one_length,
        help="Sequence length, if the model leaves it free, or that of each input: "
        "text=20,chars=8.",
    ),
    *_FRONT_END,
)
model_source_by_length = _model_source(
    click.option(
        "--time-steps",
        type=TIME_STEPS,
        metavar="N|INPUT=N,...",
        multiple=True,
        callback=_lengths,
        help="Sequence length, if the model leaves it free, or that of each input: "
        "text=20,chars=8. Repeatable, for a bundle for each. {steps} in the paths of samples "
        "stands for it, as 20 or 20-8.",
    ),
    *_FRONT_END,
)

_SSH_CONFIG = click.option(
    "--ssh-config", type=PATH, metavar="FILE", help="ssh configuration. Default: ~/.ssh/config."
)


target = _option_group(
    "target",
    TargetOptions,
    click.option(
        "--on",
        metavar="USER@HOST",
        help="Run the artifacts on a host that ssh reaches. Default: this machine.",
    ),
    click.option(
        "--python",
        metavar="PATH",
        help="Run the artifacts in this Python, which must have edgeattn. With --on: a path on "
        "that machine.",
    ),
    _SSH_CONFIG,
)


@dataclass(frozen=True)
class DeviceAccess:
    """How a device is reached."""

    python: str | None = None
    ssh_config: Path | None = None


device_access = _option_group(
    "access",
    DeviceAccess,
    click.option(
        "--python",
        metavar="PATH",
        help="Python on the device. Default: ~/edge/bin/python if it exists, else python3.",
    ),
    _SSH_CONFIG,
)

signature_option = click.option(
    "--require-signature",
    type=PATH,
    metavar="ALLOWED_SIGNERS",
    help="Refuse the bundle unless a signer in this file signed it; see edgeattn sign.",
)


def was_given(option: str) -> bool:
    """Whether the command line or a config file gave ``option``, by its parameter's name."""
    source = click.get_current_context().get_parameter_source(option)
    return source not in (None, ParameterSource.DEFAULT)
