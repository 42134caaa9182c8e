"""Outputs without a batch axis, and how to save a model without them.

Files return one result for each sample. Of a weight that a model returns, or a mean over its batch,
``model.predict`` returns one for each batch, so that the number depends on the batch size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import counted
from edgeattn.tensors import Specs, TensorSpec
from edgeattn_converters.graphs.data_sources import is_data
from edgeattn_converters.keras_classes import derives_from
from edgeattn_converters.loading.own_code.subclassed import is_called_by_name


class NotOfSamplesError(UnsupportedModelError):
    """A model one of whose outputs has another first axis than that of the samples."""


class CombinedSamplesError(UnsupportedModelError):
    """A model one of whose outputs has an axis with the size of the batch besides the first."""


class NoBatchAxisError(UnsupportedModelError):
    """A model some of whose outputs have no batch axis.

    ``kept`` and ``removed`` are the places of the other outputs and of these in ``model.outputs``,
    ``code`` saves a model with the former, and ``alternative`` is what to do instead. ``kept`` and
    ``code`` are empty if there are no others.
    """

    def __init__(
        self,
        message: str,
        kept: Sequence[int],
        removed: Sequence[int],
        code: str,
        alternative: str,
        *,
        hint: str | None = None,
    ) -> None:
        step = f"Save the model without it: {code}. Or {alternative}"
        if not kept:
            step = alternative[0].upper() + alternative[1:]
        super().__init__(message, hint=hint or step)
        self.kept, self.removed = tuple(kept), tuple(removed)
        self.code, self.alternative = code, alternative


def check_batch_axes(
    model: Any, result: Any, outputs: Mapping[str, Any], inputs: Specs, batch: int | None
) -> None:
    """Raise :class:`UnsupportedModelError` if an output has no batch axis.

    ``result`` is what ``model`` returned for ``batch`` samples, None for any number, and
    ``outputs`` are its tensors by name. For any number, a first axis of one element passes: such
    models compute one sample at a time.
    """
    others = [name for name, value in outputs.items() if not _has_batch_axis(value.shape, batch)]
    if not others:
        return
    name = others[0]
    axes, from_inputs = outputs[name].shape.as_list(), is_data(outputs[name])
    if from_inputs and len(axes) > 1 and batch is None:
        # Of a fixed number of samples, such as that of a constant with a row for each of them.
        return
    if axes and from_inputs and batch is not None:
        place = axes.index(batch) if batch in axes else None
        transposed = f": axis {place} has their number, so transpose the output" if place else ""
        raise NotOfSamplesError(
            f"Output {name!r} has the shape {tuple(axes)} for a batch of {batch}: "
            "its first axis is not that of the samples.",
            hint=f"Return one result for each sample{transposed}.",
        )
    kept = {k: other for k, other in enumerate(outputs) if other not in others}
    places = _places(result, len(outputs))
    raise NoBatchAxisError(
        f"Output {name!r} has no batch axis: its shape is {tuple(axes)} for any number of samples, "
        "and files return one result for each sample.",
        [places[k] for k in kept],
        [place for k, place in enumerate(places) if k not in kept],
        saving_code(model, result, kept, inputs) if kept else "",
        _for_each(axes, from_inputs),
    )


def set_shapes(
    outputs: Mapping[str, Any], shapes: Mapping[str, Sequence[int | None]], batch: int | None
) -> None:
    """Set the ``shapes`` that outputs have for another number of samples, apart from that number.

    Raises :class:`CombinedSamplesError` if another axis has the size of the batch.
    """
    for name, value in outputs.items():
        if name not in shapes:
            continue
        axes = tuple(shapes[name][1:])
        if not value.shape[1:].is_compatible_with(axes):
            raise CombinedSamplesError(
                f"Output {name!r} has the shape {tuple(value.shape[1:])} for each of "
                f"{counted(batch or 0, 'sample')}, and {axes} for each of another number: "
                "a layer combines the samples of a batch.",
                hint="Return one result for each sample: check the axes of tensors that a layer "
                "adds or multiplies.",
            )
        value.set_shape([batch, *axes])


def has_one_row(outputs: Sequence[Any]) -> bool:
    """Whether one of these tensors for any number of samples has a first axis of one element."""
    return any(bool(value.shape.rank) and value.shape[0] == 1 for value in outputs)


def _has_batch_axis(shape: Any, batch: int | None) -> bool:
    """Whether the first axis may be that of the samples; values show it if it is unknown."""
    if shape.rank is None:
        return True
    return bool(shape.rank) and shape[0] in (None, 1 if batch is None else batch)


def _for_each(axes: Sequence[int | None], from_inputs: bool) -> str:
    """How to change a model that it returns an output of the shape ``axes`` for each sample."""
    if from_inputs:
        return "compute it for each sample, without a mean or sum over the first axis"
    if None in axes:
        return "return it for each sample: repeat it along a new first axis"
    shape = "tf.shape(x)[:1]" if not axes else f"[tf.shape(x)[0], {', '.join(map(str, axes))}]"
    return f"return it for each sample of the input x: tf.broadcast_to(output, {shape})"


def _places(result: Any, count: int) -> list[int]:
    """The places of the ``count`` outputs of a result in ``model.outputs``."""
    if not _is_flat_dict(result):
        return list(range(count))
    # Keras sorts the keys.
    order = sorted(result)
    return [order.index(name) for name in result]


def saving_code(
    model: Any,
    result: Any,
    kept: Mapping[int, str],
    inputs: Specs,
    shapes: Mapping[int, Sequence[int]] | None = None,
) -> str:
    """Return the code that saves a model with the outputs ``kept``, by their places.

    ``shapes`` are other shapes of outputs, by their places. ``result`` is what the model returned.
    """
    subclassed = only_subclassed(model)
    if subclassed is None:
        before, tensors = "", "model.inputs"
        places = _places(result, max(kept) + 1)
        parts = [f"model.outputs[{places[k]}]" for k in kept]
    else:
        by_name = is_called_by_name(subclassed, model)
        before = f"x = {_inputs(model, inputs)}; y = model({'**x' if by_name else 'x'}); "
        tensors = "x"
        parts = [f"y{path}" for k, path in enumerate(_paths(result)) if k in kept]
    for place, k in enumerate(kept):
        if shapes and k in shapes:
            parts[place] = f"keras.ops.reshape({parts[place]}, {tuple(shapes[k])})"
    returned = parts[0] if len(parts) == 1 else f"[{', '.join(parts)}]"
    if _is_flat_dict(result):
        names = [name for k, name in enumerate(result) if k in kept]
        pairs = zip(names, parts, strict=True)
        returned = f"{{{', '.join(f'{name!r}: {part}' for name, part in pairs)}}}"
    return f"{before}keras.Model({tensors}, {returned}).save('model2.keras')"


def only_subclassed(model: Any) -> Any:
    """The model of a subclass of keras.Model that ``model`` calls, and nothing else; or None."""
    layers = [layer for layer in model.layers if not derives_from(layer, "InputLayer")]
    only = layers[0] if len(layers) == 1 else None
    if only is None or not derives_from(only, "Model"):
        return None
    return None if derives_from(only, "Functional", "Sequential") else only


def _inputs(model: Any, inputs: Specs) -> str:
    """The code that creates inputs in the structure that the model takes."""
    names = getattr(model, "_inputs_struct", None)
    if isinstance(names, dict) and set(names) == {spec.name for spec in inputs}:
        pairs = (f"{spec.name!r}: {_input(spec)}" for spec in inputs)
        return f"{{{', '.join(pairs)}}}"
    parts = [_input(spec) for spec in inputs]
    return parts[0] if len(parts) == 1 else f"[{', '.join(parts)}]"


def _input(spec: TensorSpec) -> str:
    dtype = "" if spec.dtype == "float32" else f", dtype={spec.dtype!r}"
    return f"keras.Input({spec.shape[1:]}, name={spec.name!r}{dtype})"


def _is_flat_dict(result: Any) -> bool:
    return isinstance(result, dict) and not any(
        isinstance(value, dict | list | tuple) for value in result.values()
    )


def _paths(result: Any) -> list[str]:
    """The code behind a result that selects each of its tensors, in the order of their names."""
    import keras

    if _is_flat_dict(result):
        return [f"[{key!r}]" for key in result]
    return [
        "".join(f"[{key!r}]" for key in path) for path, _ in keras.tree.flatten_with_path(result)
    ]
