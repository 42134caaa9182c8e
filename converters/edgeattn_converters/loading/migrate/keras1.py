"""A layer's config in the words of Keras 1, put into those of Keras 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.migrate.context import Config

_WORDS: dict[str, dict[str, str]] = {
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
_WORDS["Highway"] = _WORDS["Dense"]
_WORDS["GRU"] = _WORDS["SimpleRNN"] = _WORDS["LSTM"]
_WORDS["Conv1D"] = _WORDS["AtrousConvolution1D"] = _WORDS["Convolution1D"]
_WORDS["Conv2D"] = _WORDS["AtrousConvolution2D"] = _WORDS["Convolution2D"]
_WORDS["AveragePooling1D"] = _WORDS["MaxPooling1D"]
_WORDS["AveragePooling2D"] = _WORDS["GlobalMaxPooling2D"] = _WORDS["MaxPooling2D"]
_WORDS["GlobalAveragePooling2D"] = _WORDS["ZeroPadding2D"] = _WORDS["MaxPooling2D"]
_CLASSES = {
    "Convolution1D": "Conv1D", "AtrousConvolution1D": "Conv1D",
    "Convolution2D": "Conv2D", "AtrousConvolution2D": "Conv2D",
}  # fmt: skip

# How the weights start and are kept in bounds: of no use once they are trained.
_TRAINING = (
    "init", "inner_init", "forget_bias_init", "W_regularizer", "U_regularizer", "b_regularizer",
    "W_constraint", "U_constraint", "b_constraint", "beta_init", "gamma_init",
    "gamma_regularizer", "beta_regularizer", "activity_regularizer", "E_regularizer",
)  # fmt: skip
_FORMATS = {"th": "channels_first", "tf": "channels_last"}


def layer(class_name: str, config: Config) -> tuple[str, Mapping[str, Any]]:
    """Rename one layer's words. Requires a built-in of Keras 1; wrapped layers stay as they are.

    Ensures that whatever Keras 2 has no word for is gone or refused.
    """
    words = _WORDS.get(class_name, {})
    new = {words.get(key, key): value for key, value in config.items() if key not in _TRAINING}
    if new.get("data_format") in _FORMATS:
        new["data_format"] = _FORMATS[new["data_format"]]
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
                f"{new.get('name')!r} is a Keras 1 BatchNormalization of mode {mode}, which later "
                "versions do not have",
                hint="Retrain without mode, or give the layer yourself with --custom-objects.",
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
