"""Keras' own answers to samples, where the converters and the model's file are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.bundle.manifest import sha256
from edgeattn.errors import UsageError
from edgeattn.samples import states
from edgeattn.tensors import Tensors

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle

NAME = "Keras"


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


class Keras:
    """The original model in a process of its own, which starts with the first question."""

    def __init__(self, worker: Any, source: Any, options: Any) -> None:
        self._worker, self._source, self._options = worker, source, options

    def __call__(self, inputs: Tensors) -> Tensors:
        """What ``model.predict`` gives for ``inputs``, by the names of the outputs."""
        outputs: Tensors = self._worker.predict(self._source, self._options, inputs)
        return outputs

    def close(self) -> None:
        self._worker.close()


def keras_of(
    bundle: Bundle,
    model: Path,
    options: Mapping[str, Any] | None = None,
) -> Keras | None:
    """The Keras ``model`` that ``bundle`` was made of; None where the converters are not here."""
    try:
        from edgeattn_converters.options import ConversionOptions, ModelSource
        from edgeattn_converters.worker.client import ConversionWorker
    except ImportError:
        return None
    from edgeattn.inspection import check_host

    try:
        check_host()
    except UsageError:
        return None
    steps = {
        spec.shape[1]
        for spec in states.sample_inputs(bundle.manifest.artifacts[0].inputs)
        if len(spec.shape) > 1 and spec.shape[1] is not None
    }
    time_steps = steps.pop() if len(steps) == 1 else None
    inputs = bundle.manifest.artifacts[0].inputs
    with_states = len(states.sample_inputs(inputs)) < len(inputs)
    return Keras(
        ConversionWorker(),
        ModelSource(model, **{"time_steps": time_steps, **(options or {})}),
        ConversionOptions(states=with_states),
    )
