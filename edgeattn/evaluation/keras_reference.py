"""The original Keras model as the reference, if the converters and the model's file are present."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.bundle.lengths import is_length_folder
from edgeattn.bundle.model_digest import digest
from edgeattn.converters import import_converters
from edgeattn.errors import UsageError
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Specs, Tensors

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle

KERAS = "Keras"


def find_original(bundle: Bundle, path: Path | None) -> Path | None:
    """The model that the bundle was converted from: ``path``, or one beside the bundle.

    A file or folder is recognized by its SHA-256. Raises :class:`UsageError` if ``path`` is another
    model.
    """
    name, expected = str(bundle.manifest.model["file"]), bundle.manifest.model.get("sha256")
    if path is None:
        folder = bundle.path.absolute()
        if is_length_folder(folder):  # the model is beside the folder of all lengths
            candidates = [folder.parent / Path(name).name, folder.parent.parent / Path(name).name]
        else:
            candidates = [folder.parent / Path(name).name]
        known = (file for file in candidates if file.exists() and _model_digest(file) == expected)
        return next(known, None)
    if not path.exists():
        raise UsageError(f"No such file: {path}")
    if _model_digest(path) != expected:
        raise UsageError(
            f"{bundle.path.name} was converted from another model than {path.name}: the SHA-256 "
            "differs.",
            hint=f"Pass the original {name}, or convert {path.name} again.",
        )
    return path


def _model_digest(path: Path) -> str | None:
    """The SHA-256 of a model; None for any other folder, which may be a large part of the disk."""
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        return None
    return digest(path)


class Keras:
    """The original model in a worker process, which starts with the first call.

    ``maps`` names the attention maps to compute.
    """

    def __init__(self, worker: Any, source: Any, options: Any, maps: Sequence[str] = ()) -> None:
        self._worker, self._source, self._options = worker, source, options
        self._maps = tuple(maps)

    def __call__(self, inputs: Tensors) -> Tensors:
        """The outputs of ``model.predict`` and the maps by name; the sample axis is the first."""
        outputs: Tensors = self._worker.predict(self._source, self._options, inputs, self._maps)
        return outputs

    def close(self) -> None:
        self._worker.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process has a worker of its own."""
        return _start, (self._source, self._options, self._maps)


def _start(source: Any, options: Any, maps: Sequence[str]) -> Keras:
    client = import_converters("edgeattn_converters.worker.client")
    return Keras(client.ConversionWorker(), source, options, maps)


def open_keras(
    bundle: Bundle,
    model: Path,
    options: Mapping[str, Any] | None = None,
    inputs: Specs = (),
) -> Keras | None:
    """Open the Keras file that ``bundle`` was converted from.

    ``options`` are those of loading the file, and ``inputs`` the inputs that it will compute, by
    default those of the bundle. Returns None if the converters are not installed.
    """
    try:
        converters = import_converters()
    except UsageError:
        return None
    inputs = inputs or bundle.manifest.artifacts[0].inputs
    without_states = sample_inputs(inputs)
    steps = {
        spec.name: spec.shape[1]
        for spec in without_states
        if len(spec.shape) > 1 and spec.shape[1] is not None
    }
    lengths: dict[str, Any] = {"lengths": tuple(steps.items())}
    if len(set(steps.values())) == 1:
        lengths = {"time_steps": next(iter(steps.values()))}
    # Further axes may be free, as those of images.
    lengths["shapes"] = tuple(
        (spec.name, spec.shape[1:])
        for spec in without_states
        if len(spec.shape) > 3 and None not in spec.shape[1:]
    )
    if "signature" in bundle.manifest.model:
        lengths["signature"] = bundle.manifest.model["signature"]
    source = converters.ModelSource(model, **{**lengths, **(options or {})})
    source.check_files()
    return _start(
        source,
        converters.ConversionOptions(states=len(without_states) < len(inputs)),
        tuple(dict.fromkeys(n for item in bundle.manifest.artifacts for n in item.attention)),
    )
