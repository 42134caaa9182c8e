"""``edgeattn.run``"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.api.arguments import StrPath, artifact_selection, check_positive, optional_path
from edgeattn.api.by_length import fitting_bundle
from edgeattn.api.pictures import draw_map
from edgeattn.api.result import Result
from edgeattn.api.sources import (
    BundleLike,
    SamplesLike,
    Workspace,
    bundle_path,
    opened,
    sample_file,
)
from edgeattn.errors import UsageError
from edgeattn.printable import counted

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.tensors import Array, Tensors


@dataclass(frozen=True, repr=False)
class RunResult(Result):
    """Outputs of one artifact.

    Attributes:
        artifact: The artifact that ran.
        runtime: Name and version of its runtime.
        samples: The number of samples.
        outputs: Arrays by name, with the sample axis first; maps are named ``attention/LAYER``.
        path: The file with the outputs, if one was written.
    """

    artifact: Artifact
    runtime: str
    samples: int
    outputs: Tensors
    path: Path | None = None

    def __getitem__(self, name: str) -> Array:
        return self.outputs[name]

    def plot(self, map: str | None = None, *, sample: int = 0) -> Any:
        """A figure of an attention map of one sample, by default of the first map."""
        return draw_map(self.artifact, self.outputs, map, sample)

    def _document(self) -> dict[str, Any]:
        return {
            "outputs": {
                name: {"shape": list(array.shape), "dtype": str(array.dtype)}
                for name, array in self.outputs.items()
            },
            "path": None if self.path is None else str(self.path),
            "format": self.artifact.format,
            "scheme": self.artifact.scheme,
            "runtime": self.runtime,
        }

    def _summary(self) -> str:
        names = ", ".join(self.outputs)
        return (
            f"{self.artifact.label} in {self.runtime}: {counted(self.samples, 'sample')}, {names}"
        )

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        return ["output", "shape", "dtype"], [
            [name, "x".join(map(str, array.shape)), str(array.dtype)]
            for name, array in self.outputs.items()
        ]


def run(
    bundle: BundleLike,
    samples: SamplesLike,
    output: StrPath | None = None,
    *,
    formats: str | Sequence[str] = (),
    schemes: str | Sequence[str] = (),
    threads: int = 1,
    carry_states: bool = False,
    allow_non_finite: bool = False,
    ignore: Sequence[str] = (),
    force: bool = False,
    require_signature: StrPath | None = None,
) -> RunResult:
    """Run one artifact on samples, in a worker process.

    Args:
        bundle: A path, or the result of another function. In a folder with a bundle for each of
            several sequence lengths, the one that fits the samples runs.
        samples: A path, an array for the only input, or arrays by input name.
        output: An .npz file to write the outputs to; by default none is written.

    The other arguments are the options of ``edgeattn run``. Raises :class:`SampleError` if the
    samples do not fit the model, :class:`RuntimeUnavailableError` if no runtime is installed, and
    :class:`ArtifactError` if the runtime fails.
    """
    from edgeattn.inference.run import RunOptions, check_target, run_samples, write_outputs
    from edgeattn.samples.stored_inputs import explaining_stored_inputs

    check_positive(threads=threads)
    selection = artifact_selection(formats, schemes)
    workspace = Workspace()
    source = sample_file(samples, workspace, "samples")
    if source is None:
        raise UsageError("There are no samples to run on.", hint="Pass an array or a file.")
    path = bundle_path(bundle)
    of_length = fitting_bundle(path, source, selection, other_lengths=True)
    checked = opened(bundle if of_length == path else of_length, require_signature)
    target = optional_path(output)
    with explaining_stored_inputs(
        source, checked.manifest.stored_inputs, front_end=checked.manifest.frontend is not None
    ):
        _check_arrays(checked.select(selection.formats, selection.schemes), source, ignore)
    if target is not None:
        check_target(target, force=force)
    result = run_samples(
        checked,
        source,
        RunOptions(selection.formats, selection.schemes, threads, carry_states, allow_non_finite),
    )
    if target is not None:
        write_outputs(target, result)
    return RunResult(result.artifact, result.runtime, result.samples, result.outputs, target)


def _check_arrays(artifacts: Sequence[Artifact], source: Path, ignore: Sequence[str]) -> None:
    """Raise :class:`SampleError` for an array without a use: a state under another name is zero."""
    from edgeattn.inference.run import fitting_artifacts, sample_specs
    from edgeattn.samples.files import check_ignored, open_samples

    check_ignored(ignore, source)
    for artifact in fitting_artifacts(artifacts, source)[:1]:
        file = open_samples(source, sample_specs(artifact, source), ignore=ignore)
        file.check_arrays([spec.name for spec in artifact.outputs])
