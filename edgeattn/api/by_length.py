"""A folder with a bundle for each of several sequence lengths, in place of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeattn.bundle.lengths import bundles_by_length
from edgeattn.errors import SampleError

if TYPE_CHECKING:
    from edgeattn.api.arguments import ArtifactSelection


def fitting_bundle(
    path: Path, samples: Path | None, selection: ArtifactSelection, *, other_lengths: bool
) -> Path:
    """The bundle in the folder ``path`` for the sequence length of a file of samples.

    That is the bundle of this length. With ``other_lengths``, it may also be the first one whose
    ``selection`` has an artifact for any length. A path that is no such folder is returned as it
    is. Raises :class:`SampleError` if no bundle accepts the samples.
    """
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.inference.run import sample_specs
    from edgeattn.samples.files import open_samples

    folders = bundles_by_length(path)
    if not folders or samples is None:
        return path
    errors: list[SampleError] = []
    artifacts = {
        folder: Bundle.open(folder).select(selection.formats, selection.schemes)
        for folder in folders.values()
    }
    of_one_length = [(folder, items[0].inputs) for folder, items in artifacts.items()]
    of_any_length = [
        (folder, sample_specs(item, samples))
        for folder, items in artifacts.items()
        for item in items
        if item.free_axes and other_lengths
    ]
    for folder, specs in [*of_one_length, *of_any_length]:
        try:
            open_samples(samples, specs)
        except SampleError as error:
            errors.append(error)
        else:
            return folder
    if len({error.message for error in errors[: len(folders)]}) == 1:
        raise errors[0]  # another one than the length
    raise SampleError(
        errors[0].message,
        hint=f"{path.name} has bundles for sequences of {', '.join(map(str, folders))} steps: pass "
        "samples of one of these lengths.",
    )
