"""One artifact run on a file of samples, or on a stream of them, each as soon as it arrives."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeattn import progress
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import ArtifactError, BundleError, EdgeattnError, OutputError, SampleError
from edgeattn.files import atomic_write, check_suffix, require_new
from edgeattn.inference.load import first_available
from edgeattn.inference.raw import RawModel
from edgeattn.inference.raw_stream import read_raw_blocks
from edgeattn.inference.stream import read_stream
from edgeattn.printable import counted
from edgeattn.process.worker import Worker
from edgeattn.runners import Runner
from edgeattn.runners.isolated import IsolatedRunner
from edgeattn.runners.stateful import StatefulRunner
from edgeattn.samples.files import open_samples, read_samples
from edgeattn.samples.finite import check_outputs
from edgeattn.samples.npz import write_npz
from edgeattn.samples.states import with_initial_states
from edgeattn.tensors import Specs, Tensors

# Samples of a stream that are sent to the worker at once, if that many have arrived.
BATCH = 16
_OTHER_FILE = "Choose another file with -o FILE."


@dataclass(frozen=True)
class RunResult:
    """Outputs of one artifact, and the runtime that computed them."""

    artifact: Artifact
    runtime: str
    samples: int
    outputs: Tensors


@dataclass(frozen=True)
class RunOptions:
    """How an artifact is run: the first of ``formats`` and ``schemes`` whose runtime is installed.

    With ``carry_states`` each sample starts from the final states of the one before it. NaN and
    infinity in samples and outputs are errors, except with ``allow_non_finite``.
    """

    formats: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    threads: int = 1
    carry_states: bool = False
    allow_non_finite: bool = False


def run_bundle(
    bundle: Path | Bundle,
    source: Path,
    target: Path,
    options: RunOptions = RunOptions(),
    *,
    force: bool = False,
) -> RunResult:
    """Run an artifact on a file of samples, and write ``target``.

    ``source`` is a file of samples (.npz, .npy or .csv), ``target`` an .npz file with one array per
    output. Raises :class:`BundleError` if no artifact matches or the bundle is damaged,
    :class:`SampleError` if the samples do not fit the model, :class:`OutputError` if ``target``
    exists (without ``force``) or cannot be written, :class:`RuntimeUnavailableError` if no runtime
    is installed, and :class:`ArtifactError` if the runtime fails.
    """
    check_target(target, force=force)
    result = run_samples(bundle, source, options)
    write_outputs(target, result)
    return result


def run_samples(
    bundle: Path | Bundle, source: Path, options: RunOptions = RunOptions()
) -> RunResult:
    """As :func:`run_bundle`, but write no file."""
    with _open_artifact(bundle, options, source) as runner:
        specs = sample_specs(runner.artifact, source)
        samples = read_samples(source, specs, allow_non_finite=options.allow_non_finite)
        stateful = StatefulRunner(runner) if options.carry_states else runner
        progress.report(f"running {runner.artifact.label}: {counted(len(samples), 'sample')}")
        outputs = stateful.run(samples.inputs)
    if not options.allow_non_finite:
        check_outputs(outputs, runner.outputs)
    return RunResult(runner.artifact, runner.runtime, len(samples), outputs)


def write_outputs(target: Path, result: RunResult) -> None:
    """Write the outputs to an .npz file, or nothing if that fails."""
    with atomic_write(target, hint=_OTHER_FILE) as file:
        write_npz(file, result.outputs)


def sample_specs(artifact: Artifact, source: Path) -> Specs:
    """The inputs as a file of samples may have them: of any length, if the artifact accepts it."""
    # The rows of a .csv have no shape.
    return artifact.inputs if source.suffix.lower() == ".csv" else artifact.free_inputs


def fitting_artifacts(artifacts: Sequence[Artifact], source: Path) -> Sequence[Artifact]:
    """The artifacts that accept the sequence length of a file of samples; all if none does."""

    def fits(artifact: Artifact) -> bool:
        try:
            open_samples(source, sample_specs(artifact, source))
        except SampleError:
            return False
        return True

    if not any(artifact.free_axes for artifact in artifacts):
        return artifacts
    return [artifact for artifact in artifacts if fits(artifact)] or artifacts


@contextmanager
def _open_artifact(
    bundle: Path | Bundle, options: RunOptions, source: Path | None = None
) -> Iterator[IsolatedRunner]:
    """The first artifact that matches and whose runtime is installed, in a worker."""
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    candidates = opened.select(options.formats, options.schemes)
    if source is not None:
        candidates = tuple(fitting_artifacts(candidates, source))
    with Worker() as worker:

        def start(item: Artifact) -> IsolatedRunner:
            progress.report(f"loading {item.path}")
            return IsolatedRunner(opened.path, item, worker, threads=options.threads)

        yield first_available(candidates, start)


def check_target(target: Path, *, force: bool) -> None:
    """Raise :class:`OutputError` before any work if ``target`` cannot be written."""
    if target.exists() and not target.is_file():
        raise OutputError(f"{target} exists and is not a file.", hint=_OTHER_FILE)
    check_suffix(target, ".npz")
    require_new(target, force=force)
    if not target.parent.is_dir():
        raise OutputError(
            f"No such folder: {target.parent}", hint="Create it, or choose another file with -o."
        )


def stream_bundle(
    bundle: Path | Bundle,
    source: io.BufferedReader,
    options: RunOptions = RunOptions(),
) -> Iterator[Tensors | EdgeattnError]:
    """The outputs for each sample of ``source``, as arrays with one row, or the sample's error.

    A sample with an error leaves the carried states as they are. The error is a
    :class:`SampleError`, which names the line or array, if a sample does not fit the model, or an
    :class:`ArtifactError` if the runtime fails; a stream without samples has one, too. Raises
    :class:`ArtifactError` if the runtime crashes.
    """
    with _open_artifact(bundle, options) as isolated:
        inputs, is_empty = isolated.artifact.free_inputs, True
        checked = isolated if options.allow_non_finite else _FiniteRunner(isolated)
        runner = StatefulRunner(checked) if options.carry_states else checked
        for sample in read_stream(source, inputs, allow_non_finite=options.allow_non_finite):
            is_empty = False
            if isinstance(sample, SampleError):
                yield sample
                continue
            result: Tensors | EdgeattnError
            try:
                result = runner.run(with_initial_states(sample, inputs))
            except (SampleError, ArtifactError) as error:
                if isolated.lost:
                    raise
                result = error
            yield result
        if is_empty:
            yield _empty_stream()


def _empty_stream() -> SampleError:
    return SampleError("The stream is empty.", hint="Check what is sent to --input.")


def stream_raw(
    bundle: Path | Bundle,
    source: io.BufferedReader,
    options: RunOptions = RunOptions(),
    *,
    pcm: bool = False,
    suffix: str = "",
) -> Iterator[dict[str, Any] | EdgeattnError]:
    """The answers to raw input in ``source``, see :func:`~edgeattn.inference.raw_stream.read_raw`.

    ``suffix`` is that of the file. Raises :class:`BundleError` if the bundle has no front end,
    :class:`SampleError` if the file or its sound does not fit it, and :class:`ArtifactError` if the
    runtime crashes. Other errors are returned in place of an answer, also that of a stream that
    ends without any.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    front_end = opened.front_end()
    if front_end is None:
        raise BundleError(
            f"{opened.path} has no front end, which describes raw input and answers.",
            hint="Convert the model again, with --preprocess FILE.toml or --labels FILE.",
        )
    with _open_artifact(opened, options) as isolated:
        artifact = isolated.artifact
        checked = isolated if options.allow_non_finite else _FiniteRunner(isolated)
        runner = StatefulRunner(checked) if options.carry_states else checked

        def run(inputs: Tensors) -> Tensors:
            try:
                # Samples that are sent together run one by one: sums must not depend on the others.
                return runner.run(with_initial_states(inputs, artifact.inputs), (1,))
            except ArtifactError as error:
                if isolated.lost:
                    raise _RuntimeLostError(error) from error
                raise

        batch = 1 if options.carry_states else BATCH
        model = RawModel(front_end, artifact.inputs, artifact.attention, run, batch=batch)
        blocks = read_raw_blocks(source, front_end, artifact.inputs, pcm=pcm, suffix=suffix)
        try:
            answered = False
            for answer in model.answers_to_blocks(blocks):
                answered = True
                yield answer
        except _RuntimeLostError as lost:
            raise lost.error from lost.error.__cause__
        if not answered:
            yield _no_answer(model)


def _no_answer(model: RawModel) -> SampleError:
    """The error of a stream that ended without an answer."""
    window = model.front_end.window
    if window is None or not model.count:
        return _empty_stream()
    return SampleError(
        f"The stream has {counted(model.count, 'reading')}, and a window has {window.length}.",
        hint="Send at least as many readings as a window has.",
    )


class _RuntimeLostError(Exception):
    """The runtime crashed, so no further sample has an answer."""

    def __init__(self, error: ArtifactError) -> None:
        super().__init__(error.message)
        self.error = error


class _FiniteRunner:
    """A runner whose outputs must be finite: NaN must not become the state of the next sample."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.inputs, self.outputs, self.runtime = runner.inputs, runner.outputs, runner.runtime

    def run(self, tensors: Tensors, batch_sizes: Sequence[int] = ()) -> Tensors:
        outputs = self._runner.run(tensors, batch_sizes)
        check_outputs(outputs, self.outputs)
        return outputs

    def close(self) -> None:
        self._runner.close()
