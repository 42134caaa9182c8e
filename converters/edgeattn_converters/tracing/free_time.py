"""Models whose time axis is free."""

from dataclasses import dataclass, replace
from typing import Any

from edgeattn_converters.tracing.keras_call import layer_name
from edgeattn_converters.tracing.trace import Interface


@dataclass(frozen=True)
class FreeModel:
    """A model whose time axis is free, and its interface, in which the axis is ``None``.

    ``axes`` are the axes of the inputs and outputs of a file that have any length, by name.
    """

    model: Any
    interface: Interface
    axes: tuple[tuple[str, tuple[int, ...]], ...] = ()


def free_model(model: Any, interface: Interface) -> FreeModel | None:
    """``model`` as a :class:`FreeModel`; None if no axis is free or it differs in its inputs.

    ``interface`` is that of the model with a fixed time axis.
    """
    names = [layer_name(tensor) for tensor in model.inputs]
    if names != [spec.name for spec in interface.inputs]:
        return None
    inputs = tuple(
        replace(spec, shape=(None, *tensor.shape[1:]))
        for spec, tensor in zip(interface.inputs, model.inputs, strict=True)
    )
    if all(None not in spec.shape[1:] for spec in inputs):
        return None
    return FreeModel(model, replace(interface, inputs=inputs))
