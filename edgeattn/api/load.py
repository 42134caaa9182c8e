"""``edgeattn.load``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.api.sources import BundleLike, bundle_path
from edgeattn.errors import BundleError

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.inference.model import Model


def load(
    bundle: BundleLike,
    *,
    format: str | None = None,
    scheme: str | None = None,
    threads: int = 1,
    carry_states: bool = False,
    allow_non_finite: bool = False,
    best: bool = False,
) -> Model:
    """Load an artifact as a function of a sample, for programs on the device.

    By default the first artifact of the format and scheme whose runtime is installed. With
    ``best`` the recommended one: that of the result, if ``bundle`` is the result of
    ``edgeattn.validate``, ``bench``, ``convert`` or ``deploy``; for a path, the smallest one that
    passes on the bundle's reference in the runtimes of this machine, which runs the artifacts
    first.

    ``bundle`` is a path, or the result of another function. If it is a folder with a bundle for
    each of several sequence lengths, every call selects the one for the length of its sample.
    Each call with ``carry_states`` starts from the final states of the call before it. NaN and
    infinity are errors of the call, except with ``allow_non_finite``.

    Raises :class:`BundleError` if the bundle is damaged, no artifact matches, there are no states
    to carry, or no artifact passes; :class:`RuntimeUnavailableError` if no runtime is installed,
    and :class:`ArtifactError` if the runtime cannot load the file.
    """
    from edgeattn.bundle.lengths import bundles_by_length
    from edgeattn.inference.by_length import ModelByLength
    from edgeattn.inference.load import load as load_artifact

    path = _path(bundle)
    options: dict[str, Any] = {"threads": threads, "allow_non_finite": allow_non_finite}
    folders = bundles_by_length(path) if best and not carry_states else {}
    if folders:
        return ModelByLength(
            {
                steps: load(folder, format=format, scheme=scheme, best=True, **options)
                for steps, folder in folders.items()
            }
        )
    options["carry_states"] = carry_states
    if not best:
        return load_artifact(path, format=format, scheme=scheme, **options)
    artifact = _recommended(bundle, path, format, scheme)
    model = load_artifact(path, format=artifact.format, scheme=artifact.scheme, **options)
    if model.artifact.sha256 != artifact.sha256:
        raise BundleError(
            f"{path} was replaced after its artifacts were compared with Keras.",
            hint="Validate it again, and pass the new result.",
        )
    return model


def _path(bundle: BundleLike) -> Path:
    """The path of the bundle, or of the folder with the bundles of a conversion."""
    from edgeattn.api.convert import ConversionResult

    return bundle.path if isinstance(bundle, ConversionResult) else bundle_path(bundle)


def _recommended(
    bundle: BundleLike, path: Path, format: str | None, scheme: str | None
) -> Artifact:
    """The recommended artifact among those of the format and scheme."""
    from edgeattn.api.validate import validate

    formats, schemes = (format,) if format else (), (scheme,) if scheme else ()
    recommendation = None if formats or schemes else getattr(bundle, "recommendation", None)
    if recommendation is None:
        recommendation = validate(path, formats=formats, schemes=schemes).recommendation
    if recommendation.artifact is None:
        raise BundleError(
            f"{path} has no artifact to recommend: {recommendation.reason}.",
            hint=f"See the reasons: edgeattn validate {path}",
        )
    return recommendation.artifact
