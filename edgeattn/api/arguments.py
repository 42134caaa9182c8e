"""Arguments that several functions and commands share."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.api.input_sizes import Lengths
from edgeattn.errors import UsageError
from edgeattn.schemes import EXPERIMENTAL, FORMATS, SCHEMES

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.targets.target import Target

StrPath = str | os.PathLike[str]
ALL = "all"


def checked_names(
    option: str, values: str | Sequence[str], allowed: Sequence[str]
) -> tuple[str, ...]:
    """``values`` as a tuple; one name may be a plain string.

    Raises :class:`UsageError` if a name is not ``allowed``.
    """
    names = (values,) if isinstance(values, str) else tuple(values)
    for name in names:
        if name not in allowed:
            raise UsageError(
                f"{option}: unknown name {name!r}.", hint=f"Choose one of {', '.join(allowed)}."
            )
    return names


def checked_formats(formats: str | Sequence[str]) -> tuple[str, ...]:
    """File formats; the empty tuple stands for all."""
    return empty_if_all(checked_names("formats", formats, (*FORMATS, ALL)))


def checked_schemes(schemes: str | Sequence[str]) -> tuple[str, ...]:
    """Precision schemes, which may be "all"."""
    return checked_names("schemes", schemes, (*SCHEMES, *EXPERIMENTAL, ALL))


def check_positive(**values: float | None) -> None:
    """Raise :class:`UsageError` if a value, by the argument's name, is not positive."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise UsageError(f"{name} is {value}.", hint="Pass a positive number.")


def check_seconds(seconds: float) -> None:
    """Raise :class:`UsageError` if a time limit is negative or not finite."""
    if not 0 <= seconds < math.inf:
        raise UsageError(f"seconds is {seconds}.", hint="Pass a finite number of at least 0.")


def optional_path(value: StrPath | None) -> Path | None:
    return None if value is None else Path(value)


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


def artifact_selection(
    formats: str | Sequence[str], schemes: str | Sequence[str]
) -> ArtifactSelection:
    """The selection of formats and schemes by name. Raises :class:`UsageError` for other names."""
    return ArtifactSelection(checked_formats(formats), checked_schemes(schemes))


@dataclass(frozen=True)
class ModelLoading:
    """What is needed to load a Keras file, and the inputs to compute its reference on."""

    samples: Path | None = None
    # Several for a command that accepts them.
    time_steps: Lengths | tuple[Lengths, ...] | None = None
    input_shapes: Mapping[str, tuple[int, ...]] | None = None
    custom_objects: Path | None = None
    architecture: str | None = None
    signature: str | None = None
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


def refuse_access(python: str | None, ssh_config: Path | None, *, without: str) -> None:
    """Raise :class:`UsageError` for options that say how a board is reached, if there is none.

    ``without`` are the options that name one.
    """
    for option, value in (("--python", python), ("--ssh-config", ssh_config)):
        if value is not None:
            raise UsageError(f"{option} has no effect without {without}.", hint=f"Omit {option}.")


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

    @property
    def name(self) -> str:
        """The name of the target, as reports have it."""
        return self.on or self.python or "here"

    @contextlib.contextmanager
    def open(self, bundle: Bundle) -> Iterator[Target]:
        from edgeattn.targets.target import open_target

        with open_target(bundle, self.on, self.python, config=self.ssh_config) as target:
            yield target


def open_bundle(path: Path, allowed_signers: Path | None) -> Bundle:
    """Open a bundle and check its signature if a file of allowed signers is given."""
    from edgeattn.bundle.bundle import Bundle

    if allowed_signers is None:
        return Bundle.open(path)
    from edgeattn.bundle.signing import open_signed

    return open_signed(path, allowed_signers)


def check_writable(*paths: Path | None) -> None:
    """Raise :class:`UsageError` before any work if a file could not be written at the end."""
    for path in paths:
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise UsageError(
                f"Cannot write a file at {path}.", hint="Choose a file name in an existing folder."
            )
