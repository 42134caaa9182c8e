"""``raw_data``: a dataset that the front end of a bundle prepares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeattn.api.arguments import StrPath
from edgeattn.api.foreign_file import is_foreign_file
from edgeattn.api.sources import BundleLike, SamplesLike, Workspace, bundle_path, sample_file
from edgeattn.api.sources import opened as open_bundle
from edgeattn.errors import UsageError
from edgeattn.samples.prepared import prepared_path

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.evaluation.file_dataset import FileDataset


def prepared_file(
    bundle: BundleLike, raw_data: SamplesLike, signers: StrPath | None, workspace: Workspace
) -> Path:
    """A file in ``workspace`` with the dataset ``raw_data`` as the front end prepares it.

    Raises :class:`UsageError` if the bundle has no front end, and :class:`SampleError` if a sample
    does not fit.
    """
    from edgeattn.inference.raw_dataset import write_prepared

    path = bundle_path(bundle)
    if is_foreign_file(path):
        raise UsageError(
            f"--raw-data has no effect on {path.name}, which is no bundle.",
            hint="Pass prepared inputs with --data.",
        )
    opened = open_bundle(bundle, signers)
    front_end = opened.front_end()
    if front_end is None:
        raise UsageError(
            f"--raw-data has no effect: {path.name} has no front end.",
            hint="Pass prepared inputs with --data, or convert the model with --preprocess.",
        )
    file = sample_file(raw_data, workspace, "raw_data")
    assert file is not None
    target = prepared_path(workspace.path / "prepared", file)
    target.parent.mkdir()
    write_prepared(file, front_end, opened.manifest.artifacts[0].inputs, target)
    return target


def with_note(dataset: FileDataset, bundle: Bundle) -> FileDataset:
    """``dataset`` with a note if nothing shows that the front end computes what training did."""
    from edgeattn.inference.raw_samples import RAW

    if any(name.startswith(RAW) for name in bundle.reference()):
        return dataset
    note = (
        "the front end was not compared with the original preprocessing; convert with --raw-samples"
    )
    return replace(dataset, notes=(*dataset.notes, note))
