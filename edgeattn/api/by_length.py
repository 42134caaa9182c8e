"""A folder with a bundle for each of several sequence lengths, in place of a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeattn.bundle.lengths import bundles_by_length
from edgeattn.errors import SampleError

if TYPE_CHECKING:
    from edgeattn.api.arguments import ArtifactSelection
    from edgeattn.bundle.manifest import Artifact


def fitting_bundle(
    path: Path, samples: Path | None, selection: ArtifactSelection, *, other_lengths: bool
) -> Path:
    """The bundle in the folder ``path`` for the sequence length of a file of samples.

    That is the bundle of this length, or else the first one whose ``selection`` consists of
    artifacts for any length. With ``other_lengths``, one such artifact is enough. A path that is
    no such folder is returned as it is. Raises :class:`SampleError` if no bundle accepts the
    samples.
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
        if item.free_axes and (other_lengths or all(other.free_axes for other in items))
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
        f"samples of one of these lengths{_any_length(artifacts.values())}.",
    )


def _any_length(selections: Iterable[Sequence[Artifact]]) -> str:
    """The format whose artifacts all accept any length, as the other thing to do; or nothing."""
    free: dict[str, bool] = {}
    for artifact in (item for items in selections for item in items):
        free[artifact.format] = free.get(artifact.format, True) and bool(artifact.free_axes)
    format = next((name for name, is_free in free.items() if is_free), None)
    return "" if format is None else f", or select artifacts for any length: --format {format}"
