"""One artifact run on a file of samples; its outputs are written to a file."""

from dataclasses import dataclass
from pathlib import Path

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import BundleError, OutputError, RuntimeUnavailableError
from edgeattn.files import atomic_write
from edgeattn.process.worker import Worker
from edgeattn.runners.isolated import IsolatedRunner
from edgeattn.runners.stateful import StatefulRunner
from edgeattn.samples.files import read_samples
from edgeattn.samples.npz import write_npz
from edgeattn.tensors import Tensors

_OTHER_FILE = "Choose another file with -o FILE."


@dataclass(frozen=True)
class RunResult:
    """Outputs of one artifact, and the runtime that computed them."""

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
) -> RunResult:
    """Run the first matching artifact whose runtime is installed, and write ``target``.

    ``source`` is a file of samples (.npz, .npy or .csv), ``target`` an .npz file with one array per
    output. With ``carry_states`` each sample starts from the final states of the one before it.
    Raises :class:`BundleError` if no artifact matches or the bundle is damaged,
    :class:`SampleError` if the samples do not fit the model, :class:`OutputError` if ``target``
    exists (without ``force``) or cannot be written, :class:`RuntimeUnavailableError` if no runtime
    is installed, and :class:`ArtifactError` if the runtime fails.
    """
    opened = Bundle.open(bundle)
    candidates = opened.select(formats, schemes)
    _check_target(target, force=force)
    with Worker() as worker:
        artifact, runner = first_available(opened, candidates, worker, threads)
        samples = read_samples(source, artifact.inputs)
        outputs = (StatefulRunner(runner) if carry_states else runner).run(samples.inputs)
        runtime = runner.runtime
    with atomic_write(target, hint=_OTHER_FILE) as file:
        write_npz(file, outputs)
    return RunResult(artifact, runtime, len(samples), outputs)


def first_available(
    bundle: Bundle, candidates: tuple[Artifact, ...], worker: Worker, threads: int
) -> tuple[Artifact, IsolatedRunner]:
    """The first of ``candidates`` whose runtime is installed, loaded in ``worker``."""
    unavailable: RuntimeUnavailableError | None = None
    for artifact in candidates:
        try:
            return artifact, IsolatedRunner(bundle.path, artifact, worker, threads=threads)
        except RuntimeUnavailableError as error:
            unavailable = unavailable or error
    raise unavailable or BundleError(f"{bundle.path} has no artifacts.")


def _check_target(target: Path, *, force: bool) -> None:
    if target.exists() and not target.is_file():
        raise OutputError(f"{target} exists and is not a file.", hint=_OTHER_FILE)
    if target.exists() and not force:
        raise OutputError(
            f"The output file exists: {target}", hint="Replace it with --force, or use -o FILE."
        )
    if not target.parent.is_dir():
        raise OutputError(
            f"No such folder: {target.parent}", hint="Create it, or choose another file with -o."
        )
