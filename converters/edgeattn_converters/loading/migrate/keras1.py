"""Configs of built-in Keras 1 layers, rewritten with the arguments of Keras 2."""

from collections.abc import Mapping
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import Config

_RENAMED: dict[str, dict[str, str]] = {
    "Dense": {"output_dim": "units", "bias": "use_bias"},
    "TimeDistributedDense": {"output_dim": "units", "bias": "use_bias"},
    "LSTM": {
        "output_dim": "units", "inner_activation": "recurrent_activation",
        "dropout_W": "dropout", "dropout_U": "recurrent_dropout",
    },
    "Dropout": {"p": "rate"},
    "SpatialDropout1D": {"p": "rate"},
    "SpatialDropout2D": {"p": "rate"},
    "GaussianDropout": {"p": "rate"},
    "GaussianNoise": {"sigma": "stddev"},
    "Convolution1D": {
        "nb_filter": "filters", "filter_length": "kernel_size", "subsample_length": "strides",
        "border_mode": "padding", "bias": "use_bias", "atrous_rate": "dilation_rate",
    },
    "Convolution2D": {
        "nb_filter": "filters", "subsample": "strides", "border_mode": "padding",
        "dim_ordering": "data_format", "bias": "use_bias", "atrous_rate": "dilation_rate",
    },
    "MaxPooling1D": {"pool_length": "pool_size", "stride": "strides", "border_mode": "padding"},
    "MaxPooling2D": {"border_mode": "padding", "dim_ordering": "data_format"},
    "UpSampling1D": {"length": "size"},
    "UpSampling2D": {"dim_ordering": "data_format"},
    "Flatten": {},
}  # fmt: skip
_RENAMED["Highway"] = _RENAMED["Dense"]
_RENAMED["GRU"] = _RENAMED["SimpleRNN"] = _RENAMED["LSTM"]
_RENAMED["Conv1D"] = _RENAMED["AtrousConvolution1D"] = _RENAMED["Convolution1D"]
_RENAMED["Conv2D"] = _RENAMED["AtrousConvolution2D"] = _RENAMED["Convolution2D"]
_RENAMED["LocallyConnected1D"] = _RENAMED["Convolution1D"]
_RENAMED["LocallyConnected2D"] = _RENAMED["Convolution2D"]
_RENAMED["AveragePooling1D"] = _RENAMED["MaxPooling1D"]
_RENAMED["AveragePooling2D"] = _RENAMED["GlobalMaxPooling2D"] = _RENAMED["MaxPooling2D"]
_RENAMED["GlobalAveragePooling2D"] = _RENAMED["ZeroPadding2D"] = _RENAMED["MaxPooling2D"]
_CLASSES = {
    "Convolution1D": "Conv1D", "AtrousConvolution1D": "Conv1D",
    "Convolution2D": "Conv2D", "AtrousConvolution2D": "Conv2D",
}  # fmt: skip

# Initializers, regularizers and constraints: without effect on a trained model.
_TRAINING_ONLY = (
    "init", "inner_init", "forget_bias_init", "W_regularizer", "U_regularizer", "b_regularizer",
    "W_constraint", "U_constraint", "b_constraint", "beta_init", "gamma_init",
    "gamma_regularizer", "beta_regularizer", "activity_regularizer", "E_regularizer",
)  # fmt: skip
_DATA_FORMATS = {"th": "channels_first", "tf": "channels_last"}


def migrate(class_name: str, config: Config) -> tuple[str, Mapping[str, Any]]:
    """Return class name and config of a built-in layer in Keras 2; wrapped layers stay unchanged.

    Raises :class:`UnsupportedModelError` if Keras 2 has no equivalent of an argument.
    """
    renamed = _RENAMED.get(class_name, {})
    new = {
        renamed.get(key, key): value for key, value in config.items() if key not in _TRAINING_ONLY
    }
    if new.get("data_format") in _DATA_FORMATS:
        new["data_format"] = _DATA_FORMATS[new["data_format"]]
    for key in ("consume_less", "input_length", "input_dim", "W_learning_rate_multiplier"):
        if class_name != "Embedding" or key == "input_length":
            new.pop(key, None)
    if "nb_row" in new:
        new["kernel_size"] = [new.pop("nb_row"), new.pop("nb_col")]
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
    return _CLASSES.get(class_name, class_name), new
