"""Whether a layer is of a class of Keras. A class of the user may have the name of one of Keras."""

from collections.abc import Sequence
from typing import Any

# Cells whose output is their first state.
CELLS = ("LSTMCell", "GRUCell", "SimpleRNNCell")
_FIRST_STATE = "_edgeattn_outputs_first_state"


def is_keras_class(layer: Any, *names: str) -> bool:
    """Whether ``layer`` is exactly one of these classes of Keras 3 or tf_keras.

    A user's subclass is not, because it may compute something else.
    """
    return _is_one_of(type(layer), names)


def derives_from(layer: Any, *names: str) -> bool:
    """Whether ``layer`` is of one of these classes of Keras, or of a class derived from one.

    Such a layer has the attributes of the class of Keras.
    """
    return any(_is_one_of(cls, names) for cls in type(layer).__mro__)


def creates_mask(layer: Any) -> bool:
    """Whether ``layer`` is a Masking of Keras, or an Embedding whose token 0 is padding."""
    return derives_from(layer, "Masking") or looks_up_padding(layer)


def looks_up_padding(layer: Any) -> bool:
    """Whether ``layer`` is an Embedding of Keras whose token 0 is padding."""
    return derives_from(layer, "Embedding") and bool(layer.mask_zero)


def output_first_state(layer: Any) -> None:
    """Let :func:`outputs_first_state` be true for a recurrent layer, in place."""
    # Not as an attribute of Keras, which would track it.
    vars(layer)[_FIRST_STATE] = True


def outputs_first_state(layer: Any) -> bool:
    """Whether the output of a recurrent layer is its first state at masked steps.

    Ahead of the first step that is not masked, it is the initial state, not zero: see
    ``loading.masked_steps``.
    """
    return bool(vars(layer).get(_FIRST_STATE))


def is_stateful(layer: Any) -> bool:
    """Whether ``layer`` is a recurrent layer of Keras that keeps its state between batches."""
    return derives_from(layer, "RNN", "Bidirectional") and bool(getattr(layer, "stateful", False))


def operations_of(layer: Any) -> Sequence[Any]:
    """The layers and operations of a functional model; none if ``layer`` is no such model."""
    return list(layer.operations) if derives_from(layer, "Function") else []


def is_signature(layer: Any) -> bool:
    """Whether ``layer`` calls the graph of a SavedModel, see ``loading.signature_layer``."""
    return type(layer).__module__ == "edgeattn_converters.loading.signatures.signature_layer"


def _is_one_of(cls: type, names: tuple[str, ...]) -> bool:
    return cls.__name__ in names and cls.__module__.split(".")[0] in ("keras", "tf_keras")
