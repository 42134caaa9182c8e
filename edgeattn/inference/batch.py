"""One artifact on a file of samples, its outputs to a file."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.bundle.writer import umask
from edgeattn.errors import BundleError, OutputError, RuntimeUnavailableError
from edgeattn.process.worker import Worker
from edgeattn.runners.isolated import IsolatedRunner
from edgeattn.runners.stateful import StatefulRunner
from edgeattn.samples import files as samples
from edgeattn.tensors import Tensors


@dataclass(frozen=True)
class Outcome:
    """What an artifact answered, and where it ran."""

    artifact: Artifact
    runtime: str
    samples: int
    outputs: Tensors


def run_bundle(
    bundle: Path,
    source: Path,
    target: Path,
    *,
    formats: tuple[str, ...] = (),
    schemes: tuple[str, ...] = (),
    threads: int = 1,
    carry_states: bool = False,
    force: bool = False,
) -> Outcome:
    """Run the first artifact that fits and whose runtime is here; write ``target`` at the end.

    The artifact's file must be the one that the manifest names, by its hash. With ``carry_states``
    each sample goes on where the one before it ended.
    """
    opened = Bundle.open(bundle)
    candidates = opened.select(formats, schemes)
    _check_target(target, force=force)
    opened.verify()
    with Worker() as child:
        artifact, runner = first_that_runs(opened, candidates, child, threads)
        read = samples.read(source, artifact.inputs)
        through = StatefulRunner(runner) if carry_states else runner
        outputs = through.run(read.inputs)
        runtime = runner.runtime
    _write(target, outputs)
    return Outcome(artifact, runtime, len(read), outputs)


def first_that_runs(
    bundle: Bundle, candidates: tuple[Artifact, ...], child: Worker, threads: int
) -> tuple[Artifact, IsolatedRunner]:
    """The first of ``candidates`` whose runtime is here, loaded in ``child``."""
    missing: RuntimeUnavailableError | None = None
    for artifact in candidates:
        try:
            return artifact, IsolatedRunner(bundle.path, artifact, child, threads=threads)
        except RuntimeUnavailableError as error:
            missing = missing or error
    raise missing or BundleError(f"{bundle.path} has no artifacts.")


def _check_target(target: Path, *, force: bool) -> None:
    if target.exists() and not target.is_file():
        raise OutputError(
            f"{target} is there and is not a file.", hint="Choose another with -o FILE."
        )
    if target.exists() and not force:
        raise OutputError(
            f"The output file exists: {target}", hint="Replace it with --force, or use -o FILE."
        )
    if not target.parent.is_dir():
        raise OutputError(
            f"No such folder: {target.parent}", hint="Make it, or choose another with -o FILE."
        )


def _write(target: Path, outputs: Tensors) -> None:
    """Write aside and rename: a full disk leaves nothing half-written."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        aside = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                samples.write_npz(file, outputs)
            aside.chmod(0o666 & ~umask())
            aside.rename(target)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"Cannot write {target}: {error.strerror or error}", hint="Choose another with -o FILE."
        ) from error
