"""Configs of built-in Keras 1 layers, rewritten with the arguments of Keras 2."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import Config

# Arguments with the same names and meaning in every layer that has them.
_RENAMED_EVERYWHERE = {
    "atrous_rate": "dilation_rate", "bias": "use_bias", "border_mode": "padding",
    "dim_ordering": "data_format", "nb_filter": "filters", "subsample": "strides",
}  # fmt: skip
_RECURRENT = {
    "output_dim": "units", "inner_activation": "recurrent_activation", "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
}  # fmt: skip
_CONVOLUTION_1D = {"filter_length": "kernel_size", "subsample_length": "strides"}
_RATE = {"p": "rate"}
_RENAMED: dict[str, dict[str, str]] = {
    "Dense": {"output_dim": "units"},
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    "SimpleRNN": _RECURRENT,
    "ConvLSTM2D": _RECURRENT,
    "Dropout": _RATE,
    "SpatialDropout1D": _RATE,
    "SpatialDropout2D": _RATE,
    "SpatialDropout3D": _RATE,
    "GaussianDropout": _RATE,
    "GaussianNoise": {"sigma": "stddev"},
    "Convolution1D": _CONVOLUTION_1D,
    "Conv1D": _CONVOLUTION_1D,
    "AtrousConvolution1D": _CONVOLUTION_1D,
    "LocallyConnected1D": _CONVOLUTION_1D,
    "MaxPooling1D": {"pool_length": "pool_size", "stride": "strides"},
    "UpSampling1D": {"length": "size"},
}
_RENAMED["Highway"] = _RENAMED["TimeDistributedDense"] = _RENAMED["Dense"]
_RENAMED["AveragePooling1D"] = _RENAMED["MaxPooling1D"]
_CLASSES = {
    "Convolution1D": "Conv1D", "AtrousConvolution1D": "Conv1D",
    "Convolution2D": "Conv2D", "AtrousConvolution2D": "Conv2D", "Convolution3D": "Conv3D",
    "Deconvolution2D": "Conv2DTranspose", "SeparableConvolution2D": "SeparableConv2D",
}  # fmt: skip
_KERNEL_SIZES = (("nb_row", "nb_col"), ("kernel_dim1", "kernel_dim2", "kernel_dim3"))

# The sides in the order in which Keras 1 stores them.
_PADDED_SIDES = {
    "ZeroPadding1D": ("left", "right"),
    "ZeroPadding2D": ("top", "bottom", "left", "right"),
}
PADDED = frozenset(_PADDED_SIDES)

# Initializers, regularizers and constraints: without effect on a trained model.
_TRAINING_ONLY = (
    "init", "inner_init", "forget_bias_init", "W_regularizer", "U_regularizer", "b_regularizer",
    "W_constraint", "U_constraint", "b_constraint", "beta_init", "gamma_init",
    "gamma_regularizer", "beta_regularizer", "activity_regularizer", "E_regularizer",
)  # fmt: skip
# Arguments of single classes that Keras 2 does not have.
_REMOVED = {"BatchNormalization": {"mode"}, "Embedding": {"dropout"}}
# Names of the orders of axes.
DATA_FORMATS = {"th": "channels_first", "tf": "channels_last"}


def keras2_class(class_name: str) -> str:
    """Return the name of a layer class in Keras 2."""
    return _CLASSES.get(class_name, class_name)


def has_arguments(class_name: str, names: Iterable[str]) -> bool:
    """Return whether one of the arguments of a layer has a name of Keras 1 only."""
    known = {
        *_RENAMED_EVERYWHERE, *_RENAMED.get(class_name, ()), *_REMOVED.get(class_name, ()),
        *(name for names in _KERNEL_SIZES for name in names), *_TRAINING_ONLY, "consume_less",
    }  # fmt: skip
    return not known.isdisjoint(set(names) - {"activity_regularizer"})


def keras2_names(class_name: str, names: Iterable[str]) -> list[str]:
    """Return the names of the arguments of a layer in Keras 2."""
    renamed = {**_RENAMED_EVERYWHERE, **_RENAMED.get(class_name, {})}
    return [renamed.get(name, name) for name in names]


def migrate(class_name: str, config: Config) -> tuple[str, Mapping[str, Any]]:
    """Return class name and config of a built-in layer in Keras 2; wrapped layers stay unchanged.

    Raises :class:`UnsupportedModelError` if Keras 2 has no equivalent of an argument.
    """
    renamed = {**_RENAMED_EVERYWHERE, **_RENAMED.get(class_name, {})}
    new = {
        renamed.get(key, key): value for key, value in config.items() if key not in _TRAINING_ONLY
    }
    if new.get("data_format") in DATA_FORMATS:
        new["data_format"] = DATA_FORMATS[new["data_format"]]
    for key in ("consume_less", "input_length", "input_dim", "W_learning_rate_multiplier"):
        if class_name != "Embedding" or key == "input_length":
            new.pop(key, None)
    for names in _KERNEL_SIZES:
        if names[0] in new:
            new["kernel_size"] = [new.pop(name) for name in names]
    if class_name in PADDED and "padding" in new:
        new["padding"] = padding_of_sides(class_name, new["padding"])
    if class_name == "Deconvolution2D":
        new["output_padding"] = _output_padding(new, new.pop("output_shape"))
    if class_name == "Embedding":
        new.pop("dropout", None)
        new["mask_zero"] = bool(new.get("mask_zero", False))
    if class_name == "BatchNormalization":
        mode = new.pop("mode", 0)
        if mode != 0:
            raise UnsupportedModelError(
                f"Layer {new.get('name')!r} is a BatchNormalization with mode={mode}, which only "
                "Keras 1 supports.",
                hint="Retrain the model without mode, or define the layer in a Python file and "
                "pass it: --custom-objects FILE.py",
            )
    if class_name == "TimeDistributedDense":
        inner = {key: value for key, value in new.items() if key in ("units", "activation",
                 "use_bias")}  # fmt: skip
        inner["name"] = f"{new.get('name')}_dense"
        outer = {"name": new.get("name"), "layer": {"class_name": "Dense", "config": inner}}
        if "batch_input_shape" in new:
            outer["batch_input_shape"] = new["batch_input_shape"]
        return "TimeDistributed", outer
    return keras2_class(class_name), new


def padding_of_sides(class_name: str, padding: Any) -> Any:
    """Return the padding of each side as pairs; in Keras 1, it may be a dict or four numbers."""
    sides = _PADDED_SIDES.get(class_name, ())
    if isinstance(padding, Mapping):
        padding = [padding.get(f"{side}_pad", 0) for side in sides]
    if len(sides) == 4 and isinstance(padding, Sequence) and len(padding) == 4:
        return [list(padding[:2]), list(padding[2:])]
    return padding


def _output_padding(config: Config, shape: Sequence[int]) -> list[int] | None:
    """Return the argument that gives a transposed convolution the output shape of Keras 1.

    None is the shape that Keras computes.
    """
    sizes = shape[2:] if config["data_format"] == "channels_first" else shape[1:3]
    axes = list(zip(sizes, config["kernel_size"], config["strides"], strict=True))
    if all(stride == 1 for _, _, stride in axes):
        return None
    if config["padding"] == "valid":
        return [(size - kernel) % stride for size, kernel, stride in axes]
    if all(size % stride == 0 for size, _, stride in axes):
        return None
    # The number of inputs is ceil(size / stride).
    return [
        size - (math.ceil(size / stride) - 1) * stride - kernel + 2 * (kernel // 2)
        for size, kernel, stride in axes
    ]
