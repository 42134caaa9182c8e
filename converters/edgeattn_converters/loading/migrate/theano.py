"""Layers of models that Keras 1 or 2 computed with Theano, where TensorFlow computes otherwise.

Both have the padding "same", and pad differently. Theano pads half of the kernel on both sides (its
border mode "half"); TensorFlow pads as little as possible, more at the end. For pooling, the Theano
backend of Keras pads a window of k by k - 1, or by k - 2 if k is odd. Averages exclude the padding.
"""

import re
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import Config, stored_layers
from edgeattn_converters.loading.migrate.context import Context, registered_layer

REGISTERED = "edgeattn>TheanoPadding"
# Theano convolves and TensorFlow correlates. Keras itself reverses the kernels of depthwise
# convolutions in Theano; it forgot Conv3DTranspose when it loaded files of Theano.
REVERSED = frozenset(
    {"Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "Conv3DTranspose", "ConvLSTM2D"}
)
_REVERSED_NOTE = (
    "Theano computed the model that was saved: the kernels of its convolutions are reversed."
)
_CLASSES = re.compile(r"(Separable|Depthwise)?(Conv|ConvLSTM|MaxPooling|AveragePooling)(\d)D\w*")


def padded_from(class_name: str, config: Config) -> tuple[int, ...] | None:
    """Return the padding before each axis if it differs from that of TensorFlow, else None."""
    match = _CLASSES.fullmatch(class_name)
    if match is None or config.get("padding") != "same":
        return None
    axes = int(match[3])
    if "Pooling" in match[2]:
        window = _numbers(config["pool_size"], axes)
        before = tuple(0 if k == 1 else k - 2 + (k + 1) % 2 for k in window)
        return before if any(before) else None
    kernel = _numbers(config["kernel_size"], axes)
    strides = _numbers(config.get("strides") or 1, axes)
    dilation = _numbers(config.get("dilation_rate") or 1, axes)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if all(span % 2 and stride == 1 for span, stride in zip(spans, strides, strict=True)):
        return None
    return tuple(span // 2 for span in spans)


def _numbers(value: Any, axes: int) -> list[int]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return [int(item) for item in values] * (axes // len(values))


def padding_of(class_name: str, config: Config, ctx: Context) -> tuple[int, ...] | None:
    """Return the padding before each axis of a layer that must pad as Theano does, else None.

    Notes what differs from TensorFlow. Raises :class:`UnsupportedModelError` for a layer that
    cannot be computed as in Theano.
    """
    if ctx.backend != "theano":
        return None
    if class_name in REVERSED:
        ctx.notes.append(_REVERSED_NOTE)
    before = padded_from(class_name, config)
    bilinear = class_name == "UpSampling2D" and config.get("interpolation") == "bilinear"
    if bilinear or (before and ("Transpose" in class_name or "ConvLSTM" in class_name)):
        argument = "interpolation" if bilinear else "padding"
        raise UnsupportedModelError(
            f"Layer {config.get('name')!r} is a {class_name} with "
            f"{argument}={config[argument]!r}, for which Theano, which trained the model, computes "
            "other values than TensorFlow.",
            hint=f"Train the model with TensorFlow, or with another {argument}.",
        )
    if before:
        ctx.notes.append(f"{config['name']}: padding='same' pads as Theano does.")
    return before


def order_notes(stored: Config) -> list[str]:
    """Return a note if the architecture may have another order of the axes than the weights.

    With the channels first, Flatten arranges its values otherwise, and the weights of the layer
    after it with them. A file of weights does not contain which one the model had.
    """
    classes = [str(item.get("class_name")) for item in stored_layers(stored)]
    convolved = any(re.search(r"Conv(LSTM)?[23]D", name) for name in classes)
    if "Flatten" not in classes or not convolved or "'channels_first'" in repr(stored):
        return []
    return [
        "Theano computed the model that was saved. If it had the channels first, as by default in "
        "Keras 1, its Flatten arranged the values in another order: give the layers of the "
        "architecture data_format='channels_first', too."
    ]


def check_built(model: Any) -> None:
    """Raise :class:`UnsupportedModelError` if a built layer must pad as Theano does."""
    for layer in model._flatten_layers():
        class_name = type(layer).__name__
        if _CLASSES.fullmatch(class_name) and padded_from(class_name, layer.get_config()):
            raise UnsupportedModelError(
                f"Layer {layer.name!r} has padding='same'. Theano, which trained the model, pads "
                "otherwise than TensorFlow, and the model has layers of your own, so that it is "
                "not rebuilt.",
                hint="Pass the architecture as JSON: --architecture FILE.json --custom-objects "
                "FILE.py",
            )


def with_padding(
    layer: dict[str, Any], class_name: str, config: Config, before: tuple[int, ...]
) -> dict[str, Any]:
    """Return the layer that pads by ``before`` and calls ``layer``, which does not pad."""
    match = _CLASSES.fullmatch(class_name)
    assert match is not None
    outer: dict[str, Any] = {
        "name": config["name"],
        "layer": layer,
        "before": before,
        "kind": match[2],
        "channels_first": config.get("data_format") == "channels_first",
    }
    if isinstance(config.get("dtype"), str):
        outer["dtype"] = config["dtype"]
    return registered_layer(REGISTERED, outer)
