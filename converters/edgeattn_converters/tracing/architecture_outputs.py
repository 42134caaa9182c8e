"""Outputs without a batch axis of models whose architecture is not part of their file.

Such a model is converted with its weights after its program or JSON changes, without saving it.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeattn.printable import enumerated
from edgeattn_converters.keras_classes import derives_from
from edgeattn_converters.loading.architecture import read_architecture
from edgeattn_converters.tracing.batch_axis import NoBatchAxisError, only_subclassed


@contextlib.contextmanager
def explained(model: Any, architecture: str | None) -> Iterator[None]:
    """Let errors about outputs without a batch axis say what to change in ``architecture``.

    That is ``FILE.json`` or ``FILE.py:FUNCTION``, None for a model that its file describes.
    """
    try:
        yield
    except NoBatchAxisError as error:
        if architecture is None or not error.kept:
            raise
        step = _step(model, architecture, error)
        if step is None:
            raise
        raise NoBatchAxisError(
            error.message,
            error.kept,
            error.removed,
            error.code,
            error.alternative,
            hint=f"{step}. Or {error.alternative}",
        ) from error


def _step(model: Any, architecture: str, error: NoBatchAxisError) -> str | None:
    """What to change; None if that is unknown."""
    subclassed = only_subclassed(model)
    if subclassed is not None:
        return f"Change call of {type(subclassed).__name__} so that it does not return it"
    if not derives_from(model, "Functional"):
        return None
    if _loses_weights(model, error.kept):
        return f"Load the weights in Keras, and save the model without it: {error.code}"
    if not architecture.endswith(".json"):
        file, _, function = architecture.rpartition(":")
        returned = error.code.removesuffix(".save('model2.keras')")
        return (
            f"Let {function}() in {Path(file).name} return {returned}, where model is what it "
            "returns now"
        )
    path = Path(architecture)
    entries = _entries(read_architecture(path), error.removed, len(model.outputs))
    if entries is None:
        return None
    listed = enumerated([json.dumps(entry) for entry in entries])
    return f'Remove {listed} from "output_layers" in {path.name}'


def _entries(config: Mapping[str, Any], removed: Sequence[int], count: int) -> list[Any] | None:
    """The entries of outputs in the JSON of a model, by their places; None if it has others."""
    inner = config.get("config")
    entries = inner.get("output_layers") if isinstance(inner, Mapping) else None
    if not isinstance(entries, list) or len(entries) != count or count < 2:
        return None
    return [entries[place] for place in removed] if isinstance(entries[0], list) else None


def _loses_weights(model: Any, kept: Sequence[int]) -> bool:
    """Whether layers with weights are behind the other outputs only, so that the file has more."""
    import keras

    smaller = keras.Model(model.inputs, [model.outputs[place] for place in kept])
    return len(smaller.weights) < len(model.weights)
