"""The note about a model that Keras has quantized, whose quantization the verdicts do not cover."""

from collections.abc import Mapping
from typing import Any

# The start of the note.
DEQUANTIZED = "Keras had quantized layers of this model"
NOT_COVERED = (
    "Keras computed with the float32 values of the weights: the verdicts do not cover the "
    "difference from the quantized model, see the note."
)


def dequantized_note(model: Mapping[str, Any]) -> str | None:
    """The note about the model of a manifest; None if Keras had not quantized it."""
    notes = model.get("notes", ())
    return next((note for note in notes if note.startswith(DEQUANTIZED)), None)
