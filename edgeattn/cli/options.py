"""Options that several commands share.

Options that belong together are one decorator, which passes one object to the command:

    @options.artifact_selection
    def command(bundle: Path, selection: options.ArtifactSelection) -> int:
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from edgeattn.errors import UsageError
from edgeattn.process.limits import SECONDS, limited_to, run_limits
from edgeattn.schemes import EXPERIMENTAL, FORMATS, MAX_DROP, SCHEMES

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.targets.target import Target

PATH = click.Path(path_type=Path)
ALL = "all"
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
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Print details too.")
formats_option = click.option(
    "--format",
    "formats",
    type=click.Choice([*FORMATS, ALL]),
    multiple=True,
    help="File format; repeatable. Default: all.",
)


def max_drop_option(limited: str) -> Callable[[Any], Any]:
    """``--max-drop``; ``limited`` is what it limits, for the help."""
    return click.option(
        "--max-drop",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
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
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        default=SECONDS,
        show_default=True,
        expose_value=False,
        callback=_limit("seconds", 1),
        help=timeout_help,
    )
    memory = click.option(
        "--memory",
        type=click.FloatRange(min=MIN_MEMORY),
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
        type=click.Choice([*SCHEMES, *EXPERIMENTAL, ALL]),
        multiple=True,
        help=help,
    )


def empty_if_all(names: tuple[str, ...]) -> tuple[str, ...]:
    """``names``, or the empty tuple, which stands for all, if "all" is among them."""
    return () if ALL in names else names


@dataclass(frozen=True)
class ArtifactSelection:
    """Formats and schemes of artifacts; an empty tuple stands for all."""

    formats: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, empty_if_all(getattr(self, field.name)))

    def of(self, bundle: Bundle) -> tuple[Artifact, ...]:
        """The selected artifacts of ``bundle``: at least one of each format and scheme named."""
        selected = bundle.select(self.formats, self.schemes)
        present = {name for item in selected for name in (item.format, item.scheme)}
        for name in (*self.formats, *self.schemes):
            if name not in present:
                labels = ", ".join(item.label for item in bundle.manifest.artifacts)
                raise UsageError(
                    f"{bundle.path} has no {name} artifact among those selected. Its artifacts: "
                    f"{labels}.",
                    hint=f"Omit {name}.",
                )
        return selected


artifact_selection = _option_group(
    "selection",
    ArtifactSelection,
    formats_option,
    schemes_option("Precision scheme; repeatable. Default: all in the bundle."),
)


@dataclass(frozen=True)
class ModelLoading:
    """What is needed to load a Keras file, and the inputs to compute its reference on."""

    samples: Path | None = None
    # Several for a command that accepts them.
    time_steps: int | tuple[int, ...] | None = None
    custom_objects: Path | None = None
    architecture: str | None = None
    trust: str | None = None
    ignore: tuple[str, ...] = ()
    preprocess: Path | None = None
    labels: Path | None = None
    raw_samples: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """The values for loading as strings and numbers, without those that are not set."""
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(self).items()
            if value is not None and name != "ignore"
        }


_LOADING = (
    click.option("--custom-objects", type=PATH, help=".py file that defines custom layers."),
    click.option(
        "--architecture",
        metavar="FILE.json|FILE.py:FUNCTION",
        help="Architecture, for a file that contains weights only.",
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
        "loading", ModelLoading, samples, time_steps, ignore_option, *more, *_LOADING
    )


model_source = _model_source(
    click.option(
        "--time-steps",
        type=click.IntRange(min=1),
        help="Sequence length, if the model leaves it free.",
    )
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
model_source_by_length = _model_source(
    click.option(
        "--time-steps",
        type=click.IntRange(min=1),
        multiple=True,
        help="Sequence length, if the model leaves it free; repeatable, for a bundle for each.",
    ),
    *_FRONT_END,
)

_SSH_CONFIG = click.option(
    "--ssh-config", type=PATH, metavar="FILE", help="ssh configuration. Default: ~/.ssh/config."
)


@dataclass(frozen=True)
class TargetOptions:
    """The machine and the Python in which artifacts run; by default these ones."""

    on: str | None = None
    python: str | None = None
    ssh_config: Path | None = None

    def __post_init__(self) -> None:
        if self.ssh_config is not None and self.on is None:
            raise UsageError("--ssh-config has no effect without --on.", hint="Omit --ssh-config.")

    @property
    def local(self) -> bool:
        """Whether artifacts run in this Python on this machine."""
        return self.on is None and self.python is None

    @contextlib.contextmanager
    def open(self, bundle: Bundle) -> Iterator[Target]:
        from edgeattn.targets.target import open_target

        with open_target(bundle, self.on, self.python, config=self.ssh_config) as target:
            yield target


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


def open_bundle(path: Path, allowed_signers: Path | None) -> Bundle:
    """Open a bundle and check its signature if a file of allowed signers is given."""
    from edgeattn.bundle.bundle import Bundle

    if allowed_signers is None:
        return Bundle.open(path)
    from edgeattn.bundle.signing import open_signed

    return open_signed(path, allowed_signers)


def was_given(option: str) -> bool:
    """Whether ``option``, by its parameter's name, was given to the command that runs."""
    source = click.get_current_context().get_parameter_source(option)
    return source not in (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)


def check_writable(*paths: Path | None) -> None:
    """Raise :class:`UsageError` before any work if a file could not be written at the end."""
    for path in paths:
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise UsageError(
                f"Cannot write a file at {path}.", hint="Choose a file name in an existing folder."
            )
