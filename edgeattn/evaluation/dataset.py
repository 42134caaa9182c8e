"""Samples of a user's own, on which artifacts are held to the reference: numbers and the task.

The reference is Keras, asked through the converters where they and the model's file are here. A
device has neither: there, the bundle's own float32 artifact stands in, once it has been found to
compute what Keras does, and every table says so.

A :class:`Stream` reads its samples from a file, a segment at a time; a :class:`Trial` holds them
and the reference's answers in memory, for those who judge many artifacts on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgeattn import progress
from edgeattn.bundle.fingerprints import calibration_fingerprints, reference_fingerprints
from edgeattn.bundle.manifest import sha256
from edgeattn.errors import SampleError
from edgeattn.evaluation import task
from edgeattn.evaluation.keras_reference import NAME as KERAS
from edgeattn.evaluation.keras_reference import Keras
from edgeattn.samples import files as sample_files
from edgeattn.samples.fingerprints import row_fingerprints
from edgeattn.samples.labels import LabelFacts
from edgeattn.tensors import Array, Tensors

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.runners import Runner

# A segment: samples that go through a freshly loaded artifact one after the other. At most so many,
# and fewer where what goes in and comes out of them takes more memory than this.
CHUNK = 1024
SEGMENT_BYTES = 16 * 2**20
NEEDS_LABELS = (
    "Write an .npz with the inputs and their labels: class numbers, zeros and ones, or amounts, "
    "under 'y', or under 'y/OUTPUT' for each output."
)


@dataclass(frozen=True)
class Segment:
    """Some samples: inputs, labels and, where they are known, the reference's answers."""

    number: int
    inputs: Tensors
    labels: Tensors
    answers: Tensors | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


class Samples(Protocol):
    """What artifacts can be tried on.

    ``facts`` tell of the labels, by output; there are none without labels. ``reference`` says who
    answers first, and is empty until that is known.
    """

    @property
    def source(self) -> str: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def reference(self) -> str: ...

    @property
    def stand_in(self) -> str | None: ...

    @property
    def facts(self) -> Mapping[str, LabelFacts]: ...

    @property
    def identity(self) -> str | None:
        """A hash of the data, for work that is resumed; None where there is none."""
        ...

    @property
    def keras(self) -> Callable[[Tensors], Tensors] | None: ...

    def __len__(self) -> int: ...

    def segments(self, first: int = 0) -> Iterator[Segment]:
        """All segments from number ``first`` on."""
        ...


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
    identity: str | None = None
    keras: None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def facts(self) -> Mapping[str, LabelFacts]:
        return {name: LabelFacts.of(labels) for name, labels in self.labels.items()}

    def segments(self, first: int = 0) -> Iterator[Segment]:
        for number in range(first, math.ceil(len(self) / CHUNK)):
            rows = slice(number * CHUNK, (number + 1) * CHUNK)
            yield Segment(
                number,
                {name: array[rows] for name, array in self.inputs.items()},
                {name: array[rows] for name, array in self.labels.items()},
                {name: array[rows] for name, array in self.answers.items()} or None,
            )

    def answered_by(self, artifact: Artifact, runner: Runner) -> Trial:
        """This trial with an artifact in the place of Keras."""
        answers = self._in_chunks(runner.run, f"running {artifact.label} in Keras' place")
        return replace(
            self, answers=answers, reference=stands_in(artifact), stand_in=artifact.label
        )

    def answered_by_keras(self, ask: Callable[[Tensors], Tensors]) -> Trial:
        """This trial with the answers of Keras, which ``ask`` gives for a chunk of inputs."""
        return replace(self, answers=self._in_chunks(ask, "asking Keras"), reference=KERAS)

    def _in_chunks(self, ask: Callable[[Tensors], Tensors], what: str) -> Tensors:
        parts: dict[str, list[Array]] = {name: [] for name in self.labels}
        for segment in self.segments():
            progress.report(f"{what}: {segment.number * CHUNK:,} of {len(self):,} samples")
            told = ask(segment.inputs)
            for name, kept in parts.items():
                kept.append(np.asarray(told[name]))
        return {name: np.concatenate(kept) for name, kept in parts.items()}


def stands_in(artifact: Artifact) -> str:
    """How a table names an artifact that answers for Keras."""
    return f"{artifact.label} of this bundle, in the place of Keras"


@dataclass(frozen=True)
class Stream:
    """Samples in a file that are never all in memory. ``count`` of them are tried.

    ``rows`` is the size of a segment, counted in samples of the file; ``left_out`` are the numbers
    of those that are not tried; ``stamp`` tells whether the file was changed since. ``arrays``
    names the labels of each output in the file.
    """

    file: sample_files.SampleFile
    count: int
    rows: int
    identity: str
    facts: Mapping[str, LabelFacts]
    arrays: Mapping[str, str]
    left_out: Array
    stamp: tuple[int, int, int]
    notes: tuple[str, ...] = ()
    keras: Keras | None = None
    stand_in: str | None = None
    reference: str = ""

    @property
    def source(self) -> str:
        return self.file.path.name

    def __len__(self) -> int:
        return self.count

    def segments(self, first: int = 0) -> Iterator[Segment]:
        start = first * self.rows
        for number, part in enumerate(self.file.batches(self.rows, start=start), first):
            rows = np.arange(number * self.rows, number * self.rows + len(part))
            keep = ~np.isin(rows, self.left_out)
            kept = part if keep.all() else part[keep]
            yield Segment(number, kept.inputs, labels_in(kept, self.arrays))
        if _stamp(self.file.path) != self.stamp:
            raise SampleError(f"{self.file.path} was changed while it was read.")

    def answered_by(self, keras: Keras) -> Stream:
        """This stream with Keras as its reference, asked as it goes."""
        return replace(self, keras=keras, reference=KERAS)


def labels_in(samples: sample_files.Samples, arrays: Mapping[str, str]) -> dict[str, Array]:
    """The labels of each output, by where they are."""
    there = {**samples.labels}
    if samples.targets is not None:
        there["y"] = samples.targets
    return {output: there[name] for output, name in arrays.items()}


def _stamp(path: Path) -> tuple[int, int, int]:
    told = path.stat()
    return told.st_ino, told.st_size, told.st_mtime_ns


def open_stream(path: Path, bundle: Bundle) -> Stream:
    """The samples in ``path``, all of them looked at once, before anything is run.

    Those that an artifact was calibrated on are left out. Raises :class:`SampleError` where any of
    them does not fit the model, or none is left.
    """
    artifact = bundle.manifest.artifacts[0]
    # The batch axis of a TFLite file is fixed, and its integers stand for real numbers.
    specs = artifact.inputs
    found = sample_files.open_samples(path, specs)
    stamp = _stamp(path)
    arrays = _label_arrays(found, artifact)
    for output, name in arrays.items():
        shape = found.labels[name].shape
        if not shape or shape[0] != len(found):
            raise SampleError(
                f"{path.name} has {len(found)} samples and other labels for {output!r}."
            )
    rows = segment_rows(artifact, {name: part.shape for name, part in found.inputs.items()})
    calibrated, known = calibration_fingerprints(bundle), set(reference_fingerprints(bundle, specs))
    facts: dict[str, LabelFacts] = {}
    left_out: list[int] = []
    shared = 0
    for number, part in enumerate(found.batches(rows)):
        progress.report(f"looking through {path.name}: {number * rows:,} of {len(found):,} samples")
        for output, labels in labels_in(part, arrays).items():
            told = LabelFacts.of(labels)
            facts[output] = facts[output] | told if output in facts else told
        for row, digest in enumerate(row_fingerprints(part.inputs, specs), number * rows):
            if digest in calibrated:
                left_out.append(row)
            elif digest in known:
                shared += 1
    notes = _notes(path.name, len(found), len(left_out), shared)
    if not arrays and found.unused:
        names = ", ".join(map(repr, found.unused))
        notes = (*notes, f"labels are looked for under 'y'; {path.name} also holds {names}")
    return Stream(
        found,
        len(found) - len(left_out),
        rows,
        sha256(path),
        facts,
        arrays,
        np.array(left_out, np.int64),
        stamp,
        notes,
    )


def _label_arrays(found: sample_files.SampleFile, artifact: Artifact) -> dict[str, str]:
    """The name of the array of labels for each output that has any."""
    outputs = main_outputs(artifact)
    names = {name: np.array(0) for name in found.labels}
    told = task.labels_for(names, outputs)
    return {
        output: "y" if labels is names.get("y") else f"y/{output}"
        for output, labels in told.items()
    }


def main_outputs(artifact: Artifact) -> tuple[str, ...]:
    """The outputs that answer: neither a map nor a state."""
    aside = {*artifact.attention, *(spec.state for spec in artifact.inputs)}
    return tuple(spec.name for spec in artifact.outputs if spec.name not in aside)


def segment_rows(artifact: Artifact, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many samples of these shapes make a segment of at most :data:`SEGMENT_BYTES`."""
    steps = max((shape[1] for shape in shapes.values() if len(shape) > 1), default=1)
    size = sum(8 * math.prod(shape[1:]) for shape in shapes.values())
    for spec in artifact.outputs:
        # An axis that is free is as long as the longest sequence.
        size += 4 * math.prod(axis or steps for axis in spec.shape[1:])
    return max(1, min(CHUNK, SEGMENT_BYTES // max(1, size)))


def _notes(source: str, count: int, left_out: int, shared: int) -> tuple[str, ...]:
    if left_out == count:
        raise SampleError(
            f"Every sample in {source} was calibrated on: it proves nothing.",
            hint="Give samples that the conversion has not seen.",
        )
    notes = []
    if left_out:
        notes.append(f"{left_out} of {count} left out: an artifact was calibrated on them")
    if shared:
        notes.append(f"{shared} of the samples are among the bundle's reference too")
    return tuple(notes)


def read(path: Path, bundle: Bundle) -> Trial:
    """The samples and labels in ``path``, in memory, without those that were calibrated on.

    Raises :class:`SampleError` where they do not fit the model, have no labels, or none is left.
    """
    stream = open_stream(path, bundle)
    if not stream.facts:
        raise no_labels(path.name)
    parts = list(stream.segments())

    def joined(of: str) -> dict[str, Any]:
        names = getattr(parts[0], of)
        return {name: np.concatenate([getattr(p, of)[name] for p in parts]) for name in names}

    return Trial(
        joined("inputs"),
        joined("labels"),
        path.name,
        notes=stream.notes,
        identity=stream.identity,
    )


def no_labels(source: str) -> SampleError:
    return SampleError(f"{source} holds no labels: the task cannot be judged.", hint=NEEDS_LABELS)
