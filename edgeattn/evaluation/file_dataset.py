"""A dataset in a file, which is read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeattn import progress
from edgeattn.bundle.fingerprints import calibration_fingerprints, reference_fingerprints
from edgeattn.bundle.manifest import sha256
from edgeattn.errors import SampleError
from edgeattn.evaluation.dataset import Batch, InMemoryDataset, batch_size, main_outputs
from edgeattn.evaluation.keras_reference import KERAS, Keras
from edgeattn.samples.files import SampleFile, Samples, open_samples
from edgeattn.samples.fingerprints import row_fingerprints
from edgeattn.samples.labels import LabelSummary, labels_for
from edgeattn.tensors import Array, Tensors

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact


@dataclass(frozen=True)
class FileDataset:
    """A dataset in a file, of which one batch at a time is in memory.

    Attributes:
        count: Number of samples, without those excluded.
        rows: Number of samples of the file per batch.
        label_arrays: Name of the array of labels in the file, by output.
        excluded: Row numbers of the samples that are left out.
        stamp: Inode, size and modification time of the file, which show whether it changed.
    """

    file: SampleFile
    count: int
    rows: int
    fingerprint: str
    label_summaries: Mapping[str, LabelSummary]
    label_arrays: Mapping[str, str]
    excluded: Array
    stamp: tuple[int, int, int]
    notes: tuple[str, ...] = ()
    keras: Keras | None = None
    fallback_reference: str | None = None
    reference_name: str = ""

    @property
    def source(self) -> str:
        return self.file.path.name

    def __len__(self) -> int:
        return self.count

    def batches(self, first: int = 0) -> Iterator[Batch]:
        """The batches from number ``first`` on.

        Raises :class:`SampleError` if the file changes while it is read.
        """
        for number, part in enumerate(self.file.batches(self.rows, start=first * self.rows), first):
            rows = np.arange(number * self.rows, number * self.rows + len(part))
            included = ~np.isin(rows, self.excluded)
            samples = part if included.all() else part[included]
            yield Batch(number, samples.inputs, _labels(samples, self.label_arrays))
        if _stamp(self.file.path) != self.stamp:
            raise SampleError(f"{self.file.path} was changed while it was read.")

    def with_keras(self, keras: Keras) -> FileDataset:
        """This dataset with the Keras model as its reference, which runs batch by batch."""
        return replace(self, keras=keras, reference_name=KERAS)


def _labels(samples: Samples, label_arrays: Mapping[str, str]) -> dict[str, Array]:
    """The labels of each output."""
    arrays = dict(samples.labels)
    if samples.targets is not None:
        arrays["y"] = samples.targets
    return {output: arrays[name] for output, name in label_arrays.items()}


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def open_dataset(path: Path, bundle: Bundle) -> FileDataset:
    """Open and check the samples and labels in ``path`` before any artifact runs.

    Samples that an artifact was calibrated on are excluded. Raises :class:`SampleError` if a sample
    does not fit the model, or if all are excluded.
    """
    artifact = bundle.manifest.artifacts[0]
    # Any artifact will do: samples have the shapes of the model, not those of a TFLite batch.
    specs = artifact.inputs
    file = open_samples(path, specs)
    stamp = _stamp(path)
    label_arrays = _label_arrays(file, artifact)
    for output, name in label_arrays.items():
        shape = file.labels[name].shape
        if not shape or shape[0] != len(file):
            raise SampleError(
                f"{path.name} has {len(file)} samples, and the labels {name!r} of output "
                f"{output!r} have the shape {shape}.",
                hint="Give one label per sample.",
            )
    rows = batch_size(artifact, {name: array.shape for name, array in file.inputs.items()})
    calibrated = calibration_fingerprints(bundle)
    known = set(reference_fingerprints(bundle, specs))
    facts: dict[str, LabelSummary] = {}
    excluded: list[int] = []
    shared = 0
    for number, part in enumerate(file.batches(rows)):
        progress.report(f"reading {path.name}: {number * rows:,} of {len(file):,} samples")
        for output, labels in _labels(part, label_arrays).items():
            of_batch = LabelSummary.of(labels)
            facts[output] = facts[output] | of_batch if output in facts else of_batch
        for row, fingerprint in enumerate(row_fingerprints(part.inputs, specs), number * rows):
            if fingerprint in calibrated:
                excluded.append(row)
            elif fingerprint in known:
                shared += 1
    return FileDataset(
        file,
        len(file) - len(excluded),
        rows,
        sha256(path),
        facts,
        label_arrays,
        np.array(excluded, np.int64),
        stamp,
        _notes(file, bool(label_arrays), len(excluded), shared),
    )


def _label_arrays(file: SampleFile, artifact: Artifact) -> dict[str, str]:
    """The name of the array of labels, for each output that has one."""
    placeholders: Tensors = {name: np.array(0) for name in file.labels}
    return {
        output: "y" if array is placeholders.get("y") else f"y/{output}"
        for output, array in labels_for(placeholders, main_outputs(artifact)).items()
    }


def _notes(file: SampleFile, labelled: bool, excluded: int, shared: int) -> tuple[str, ...]:
    count, source = len(file), file.path.name
    if excluded == count:
        raise SampleError(
            f"The artifacts were calibrated on all {count} samples in {source}.",
            hint="Give samples that were not used for calibration.",
        )
    notes = []
    if excluded:
        notes.append(f"{excluded} of {count} samples excluded, used for calibration")
    if shared:
        notes.append(f"{shared} of {count} samples are also in the bundle's reference")
    if not labelled and file.unused:
        names = ", ".join(map(repr, file.unused))
        notes.append(f"no labels under 'y'; unused arrays in {source}: {names}")
    return tuple(notes)


def read_dataset(path: Path, bundle: Bundle) -> InMemoryDataset:
    """Read the samples and labels in ``path`` into memory, without those calibrated on.

    Raises :class:`SampleError` if they do not fit the model, have no labels, or none remains.
    """
    dataset = open_dataset(path, bundle)
    if not dataset.label_summaries:
        raise missing_labels(path.name)
    batches = list(dataset.batches())
    inputs, labels = (
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in ([batch.inputs for batch in batches], [batch.labels for batch in batches])
    )
    return InMemoryDataset(
        inputs, labels, path.name, notes=dataset.notes, fingerprint=dataset.fingerprint
    )


def missing_labels(source: str) -> SampleError:
    return SampleError(
        f"{source} contains no labels, which the score of the task needs.",
        hint="Write an .npz with the inputs and their labels (class numbers, zeros and ones, or "
        "amounts) under 'y', or under 'y/OUTPUT' for each output.",
    )
