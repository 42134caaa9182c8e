"""A dataset in a file, which is read batch by batch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeattn import progress
from edgeattn.bundle.fingerprints import calibration_fingerprints, reference_fingerprints
from edgeattn.bundle.manifest import sha256
from edgeattn.errors import SampleError
from edgeattn.evaluation.data_lengths import open_fitting
from edgeattn.evaluation.dataset import Batch, InMemoryDataset, batch_size, main_outputs
from edgeattn.evaluation.keras_reference import KERAS, Keras
from edgeattn.printable import counted
from edgeattn.samples.files import SampleFile, Samples, open_samples
from edgeattn.samples.fingerprints import hashes_of, row_hashes
from edgeattn.samples.labels import LabelSummary, check_labels, label_arrays
from edgeattn.samples.prepared import shown_name
from edgeattn.samples.stored_inputs import explaining_stored_inputs
from edgeattn.tensors import Array

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
        varied: Whether there are two different samples.
        stamp: Inode, size and modification time of the file, which show whether it changed; the
            inode is 0 if it is unknown.
    """

    file: SampleFile
    count: int
    rows: int
    fingerprint: str
    label_summaries: Mapping[str, LabelSummary]
    label_arrays: Mapping[str, str]
    excluded: Array
    stamp: tuple[int, int, int]
    varied: bool
    notes: tuple[str, ...] = ()
    keras: Keras | None = None
    fallback_reference: str | None = None
    reference_name: str = ""

    @property
    def source(self) -> str:
        return shown_name(self.file.path)

    def __len__(self) -> int:
        return self.count

    @property
    def batch_count(self) -> int:
        return math.ceil(len(self.file) / self.rows)

    def batches(self, first: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """The batches from number ``first`` on, those before ``stop`` only if it is given.

        Raises :class:`SampleError` if the file changes while it is read.
        """
        end = None if stop is None else stop * self.rows
        parts = self.file.batches(self.rows, start=first * self.rows, stop=end)
        for number, part in enumerate(parts, first):
            rows = np.arange(number * self.rows, number * self.rows + len(part))
            included = ~np.isin(rows, self.excluded)
            samples = part if included.all() else part[included]
            yield Batch(number, samples.inputs, _labels(samples, self.label_arrays))
        if self.changed:
            raise SampleError(f"{self.file.path} was changed while it was read.")

    @property
    def changed(self) -> bool:
        """Whether the file is another one now."""
        inode, size, modified = _stamp(self.file.path)
        return (self.stamp[0] or inode, *self.stamp[1:]) != (inode, size, modified)

    def for_other_machines(self) -> FileDataset:
        """This dataset for machines on which the file has another inode."""
        return replace(self, stamp=(0, *self.stamp[1:]))

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


def open_dataset(
    path: Path,
    bundle: Bundle,
    ignore: Collection[str] = (),
    *,
    artifacts: Sequence[Artifact] = (),
) -> FileDataset:
    """Open and check the samples and labels in ``path`` before any artifact runs.

    Samples that an artifact was calibrated on are excluded; ``ignore`` names arrays to leave out.
    If all ``artifacts`` accept any length, that of the samples may be another one than the
    bundle's. Raises :class:`SampleError` if a sample or a label does not fit the model, if an array
    is neither an input nor labels of an output, or if all samples are excluded.
    """
    outputs = main_outputs(bundle.manifest.artifacts[0])
    # Any artifact will do: samples have the shapes of the model, not those of a TFLite batch.
    with explaining_stored_inputs(
        path, bundle.manifest.stored_inputs, front_end=bundle.manifest.frontend is not None
    ):
        file, artifact = open_fitting(
            lambda specs: open_samples(path, specs, outputs=outputs, ignore=ignore),
            artifacts or bundle.manifest.artifacts[:1],
        )
    stamp = _stamp(path)
    arrays = label_arrays((*file.labels, *file.unused), outputs)
    for output, name in arrays.items():
        shape = file.labels[name].shape
        if not shape or shape[0] != len(file):
            raise SampleError(
                f"{shown_name(path)} has {counted(len(file), 'sample')}, and the labels {name!r} "
                f"of output {output!r} have the shape {shape}.",
                hint="Give one label per sample.",
            )
    rows = batch_size(artifact, {name: array.shape for name, array in file.inputs.items()})
    contents = _read(file, rows, arrays, bundle)
    for spec in artifact.outputs:
        shape = tuple(axis for axis in spec.shape[1:] if axis is not None)
        if spec.name in arrays and len(shape) == len(spec.shape) - 1:
            check_labels(spec.name, contents.labels[spec.name], shape)
    return FileDataset(
        file,
        len(file) - len(contents.excluded),
        rows,
        sha256(path),
        contents.labels,
        arrays,
        np.array(contents.excluded, np.int64),
        stamp,
        contents.varied,
        _notes(file, contents),
    )


@dataclass(frozen=True)
class _Contents:
    """Facts about all samples of a file.

    ``labels`` are by output, ``excluded`` are row numbers, ``shared`` is the number of samples that
    the reference contains too, ``repeated`` that of samples that are equal to an earlier one, and
    ``varied`` says whether two samples differ.
    """

    labels: Mapping[str, LabelSummary]
    excluded: list[int]
    shared: int
    repeated: int
    varied: bool


def _read(file: SampleFile, rows: int, arrays: Mapping[str, str], bundle: Bundle) -> _Contents:
    """Read all samples once, ``rows`` at a time; :class:`SampleError` if a value does not fit."""
    calibrated = hashes_of(calibration_fingerprints(bundle))
    known = hashes_of(reference_fingerprints(bundle, file.specs))
    facts: dict[str, LabelSummary] = {}
    excluded: list[Array] = []
    # 8 bytes for each sample, which is less than a batch takes even for a million of them.
    hashes: list[Array] = []
    shared, first, varied = 0, None, False
    for number, part in enumerate(file.batches(rows)):
        progress.report(
            f"reading {shown_name(file.path)}: {number * rows:,} of {counted(len(file), 'sample')}"
        )
        for output, labels in _labels(part, arrays).items():
            of_batch = LabelSummary.of(labels)
            facts[output] = facts[output] | of_batch if output in facts else of_batch
        hashes.append(row_hashes(part.inputs, file.specs))
        used = ~np.isin(hashes[-1], calibrated)
        excluded.append(number * rows + np.flatnonzero(~used))
        remaining = hashes[-1][used]
        shared += int(np.isin(remaining, known).sum())
        if len(remaining):
            first = remaining[0] if first is None else first
            varied = varied or bool((remaining != first).any())
    ordered = np.concatenate(hashes)
    ordered.sort()
    repeated = int((ordered[1:] == ordered[:-1]).sum())
    return _Contents(facts, np.concatenate(excluded).tolist(), shared, repeated, varied)


def _notes(file: SampleFile, contents: _Contents) -> tuple[str, ...]:
    count, source, excluded = len(file), shown_name(file.path), len(contents.excluded)
    if excluded == count:
        raise SampleError(
            f"The artifacts were calibrated on every sample in {source} ({count}).",
            hint="Give samples that were not used for calibration.",
        )
    notes = []
    if excluded:
        notes.append(f"{excluded} of {count} samples excluded, used for calibration")
    if contents.shared:
        notes.append(f"samples that the bundle's reference contains: {contents.shared} of {count}")
    if contents.repeated:
        notes.append(
            f"samples that repeat others: {contents.repeated} of {count}; the intervals of the "
            "task assume that samples are independent"
        )
    return tuple(notes)


def read_dataset(path: Path, bundle: Bundle, ignore: Collection[str] = ()) -> InMemoryDataset:
    """Read the samples and labels in ``path`` into memory, without those calibrated on.

    ``ignore`` names arrays to leave out.

    Raises :class:`SampleError` if they do not fit the model, have no labels, or none remains.
    """
    dataset = open_dataset(path, bundle, ignore)
    if not dataset.label_summaries:
        raise missing_labels(shown_name(path))
    batches = list(dataset.batches())
    inputs, labels = (
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in ([batch.inputs for batch in batches], [batch.labels for batch in batches])
    )
    return InMemoryDataset(
        inputs, labels, shown_name(path), notes=dataset.notes, fingerprint=dataset.fingerprint
    )


def missing_labels(source: str) -> SampleError:
    return SampleError(
        f"{source} contains no labels, which the score of the task needs.",
        hint="Write an .npz with the inputs and their labels (class numbers, zeros and ones, or "
        "amounts) under 'y', or under 'y/OUTPUT' for each output.",
    )
