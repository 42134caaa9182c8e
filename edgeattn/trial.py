"""Samples with labels, answered by the reference and by artifacts: what a task is judged on.

The reference is Keras, asked through the converters where they and the model's file are here. A
device has neither: there, the bundle's own float32 artifact stands in, once it has been found to
compute what Keras does, and every table says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeattn import samples as sample_files
from edgeattn import task
from edgeattn.bundle import sha256
from edgeattn.errors import SampleError, UsageError
from edgeattn.task import TaskReport
from edgeattn.tensors import Array, Tensors, TensorSpec

if TYPE_CHECKING:
    from edgeattn.bundle import Artifact, Bundle
    from edgeattn.runners import Runner

# Samples that go through a runtime at a time: bounds what inputs, maps and pipes take.
CHUNK = 1024
KERAS = "Keras"
NEEDS_LABELS = (
    "Write an .npz with the inputs and their labels: class numbers, zeros and ones, or amounts, "
    "under 'y', or under 'y/OUTPUT' for each output."
)


@dataclass(frozen=True)
class Trial:
    """``inputs`` and ``labels`` of samples, and the reference's ``answers`` to them, by output.

    ``reference`` says who answered; ``stand_in`` is the label of the artifact that did, where it
    was one. ``notes`` tell what was left out and why.
    """

    inputs: Tensors
    labels: Mapping[str, Array]
    source: str
    reference: str = ""
    answers: Tensors = field(default_factory=dict)
    stand_in: str | None = None
    notes: tuple[str, ...] = ()
    on_progress: Callable[[str], None] | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def judge(self, artifact: Artifact, runner: Runner, limits: Callable[[str], Any]) -> TaskReport:
        """What ``artifact`` answers, against the reference's answers and the labels."""
        if not self.answers:
            reason = (
                "There is nothing to compare with: Keras or the model's file is not here, and no "
                "float32 artifact of the bundle is as Keras is."
            )
            return TaskReport("nothing", (), self.source, self.notes, reason)
        if artifact.label == self.stand_in:
            reason = f"{artifact.label} is the reference here: it cannot be compared with itself."
            return TaskReport(self.reference, (), self.source, self.notes, reason)
        answers = self._ask(artifact, runner, f"running {artifact.label}")
        outcomes = tuple(
            task.compare(
                name, labels, self.answers[name], answers[name], retention=limits(name).retention
            )
            for name, labels in self.labels.items()
        )
        return TaskReport(self.reference, outcomes, self.source, self.notes)

    def answered_by(self, artifact: Artifact, runner: Runner) -> Trial:
        """This trial with an artifact in the place of Keras."""
        answers = self._ask(artifact, runner, f"running {artifact.label} in Keras' place")
        told = f"{artifact.label} of this bundle, in the place of Keras"
        return replace(self, answers=answers, reference=told, stand_in=artifact.label)

    def answered_by_keras(self, ask: Callable[[Tensors], Tensors]) -> Trial:
        """This trial with the answers of Keras, which ``ask`` gives for a chunk of inputs."""
        return replace(self, answers=self._in_chunks(ask, "asking Keras"), reference=KERAS)

    def _ask(self, artifact: Artifact, runner: Runner, what: str) -> Tensors:
        missing = [name for name in self.labels if name not in {o.name for o in artifact.outputs}]
        if missing:
            raise SampleError(f"{artifact.label} has no output {missing[0]!r}.")
        return self._in_chunks(runner.run, what)

    def _in_chunks(self, ask: Callable[[Tensors], Tensors], what: str) -> Tensors:
        parts: dict[str, list[Array]] = {name: [] for name in self.labels}
        for start, chunk in self._chunks():
            if self.on_progress is not None:
                self.on_progress(f"{what}: {start:,} of {len(self):,} samples")
            told = ask(chunk)
            for name, kept in parts.items():
                kept.append(np.asarray(told[name]))
        return {name: np.concatenate(kept) for name, kept in parts.items()}

    def _chunks(self) -> Iterator[tuple[int, Tensors]]:
        for start in range(0, len(self), CHUNK):
            yield start, {name: a[start : start + CHUNK] for name, a in self.inputs.items()}


def read(path: Path, bundle: Bundle, on_progress: Callable[[str], None] | None = None) -> Trial:
    """The samples and labels in ``path``, without those that an artifact was calibrated on.

    Raises :class:`SampleError` where they do not fit the model, have no labels, or none is left.
    """
    artifact = bundle.manifest.artifacts[0]
    # The batch axis of a TFLite file is fixed, and its integers stand for real numbers.
    specs = artifact.inputs
    found = sample_files.read(path, specs)
    outputs = tuple(o.name for o in artifact.outputs if o.name not in artifact.attention)
    targets: dict[str, Array] = {} if found.targets is None else {"y": found.targets}
    if path.suffix.lower() == ".npz" and len(outputs) > 1:
        targets |= {k: v for k, v in sample_files.read_npz(path).items() if k.startswith("y/")}
    labels = task.labels_for(targets, outputs)
    if not labels:
        raise SampleError(
            f"{path.name} holds no labels: the task cannot be judged.", hint=NEEDS_LABELS
        )
    for name, array in labels.items():
        if not array.ndim or len(array) != len(found):
            raise SampleError(
                f"{path.name} has {len(found)} samples and other labels for {name!r}."
            )
    digests = row_digests(found.inputs, specs)
    notes = []
    calibrated = calibration_digests(bundle)
    keep = np.array([digest not in calibrated for digest in digests])
    if not keep.any():
        raise SampleError(
            f"Every sample in {path.name} was calibrated on: it proves nothing.",
            hint="Give samples that the conversion has not seen.",
        )
    if not keep.all():
        notes.append(
            f"{int((~keep).sum())} of {len(keep)} left out: an artifact was calibrated on them"
        )
    known = set(reference_digests(bundle, specs))
    shared = sum(d in known for d, kept in zip(digests, keep, strict=True) if kept)
    if shared:
        notes.append(f"{shared} of the samples are among the bundle's reference too")
    return Trial(
        {name: array[keep] for name, array in found.inputs.items()},
        {name: array[keep] for name, array in labels.items()},
        path.name,
        notes=tuple(notes),
        on_progress=on_progress,
    )


def row_digests(inputs: Tensors, specs: tuple[TensorSpec, ...]) -> list[str]:
    """A short hash of each sample: the bytes of its inputs, one after the other."""
    count = len(inputs[specs[0].name])
    return [
        hashlib.sha256(
            b"".join(np.ascontiguousarray(inputs[spec.name][row]).tobytes() for spec in specs)
        ).hexdigest()[:16]
        for row in range(count)
    ]


def calibration_digests(bundle: Bundle) -> set[str]:
    """The hashes of samples that an artifact of the bundle was calibrated on."""
    found: set[str] = set()
    for artifact in bundle.manifest.artifacts:
        told = artifact.achieved.get("calibration")
        if isinstance(told, Mapping):
            found.update(str(digest) for digest in told.get("digests", ()))
    return found


def reference_digests(bundle: Bundle, specs: tuple[TensorSpec, ...]) -> list[str]:
    """The hashes of the samples in the bundle's reference."""
    reference = bundle.reference()
    rows = int(bundle.manifest.reference["samples"])
    inputs = {spec.name: reference[f"input/{spec.name}"][:rows] for spec in specs}
    return row_digests(inputs, specs)


# Keras, where it is


def original_model(bundle: Bundle, given: Path | None) -> Path | None:
    """The Keras file that the bundle was made of, by its hash: the one given, or one beside it.

    Raises :class:`UsageError` where the one that was given is another file.
    """
    name, expected = str(bundle.manifest.model["file"]), bundle.manifest.model.get("sha256")
    if given is not None:
        if not given.is_file():
            raise UsageError(f"No such file: {given}")
        if sha256(given) != expected:
            raise UsageError(
                f"{given.name} is not the file that {bundle.path.name} was made of: its SHA-256 "
                "differs.",
                hint=f"Give the original {name}, or convert again.",
            )
        return given
    beside = bundle.path.absolute().parent / Path(name).name
    return beside if beside.is_file() and sha256(beside) == expected else None


def ask_keras(
    trial: Trial, bundle: Bundle, model: Path, options: Mapping[str, Any] | None = None
) -> Trial | None:
    """``trial`` with Keras' own answers, computed in a child process; None without converters."""
    try:
        from edgeattn_converters.isolation import Host
    except ImportError:
        return None
    from edgeattn.inspection import check_host

    try:
        check_host()
    except UsageError:
        return None
    job = {"path": str(model), **(options or {})}
    steps = {
        spec.shape[1]
        for spec in bundle.manifest.artifacts[0].inputs
        if len(spec.shape) > 1 and spec.shape[1] is not None
    }
    if len(steps) == 1:
        job["time_steps"] = steps.pop()
    with Host(trial.on_progress) as host:
        return trial.answered_by_keras(
            lambda chunk: host.ask("predict", {"job": job}, chunk, what="Keras' answers")
        )
