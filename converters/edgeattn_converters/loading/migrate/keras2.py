"""Configs of built-in Keras 2 and 3 layers, rewritten with the arguments of the current Keras.

The layers compute what they were trained with: an argument with an effect on the outputs is
migrated or refused, never dropped.
"""

import math
from typing import Any

import numpy as np

from edgeattn_converters.loading.config_inspection import (
    Config,
    abbreviated,
    registered_name,
    stored_number,
    unqualified,
)
from edgeattn_converters.loading.error_text import beginning
from edgeattn_converters.loading.keras_3_failures import Keras3ModelError
from edgeattn_converters.loading.migrate.context import Context, keras_layer, safe_name
from edgeattn_converters.loading.own_code import own_functions

HARD_SIGMOID = "edgeattn>hard_sigmoid_keras2"
STORED_WEIGHTS = "edgeattn>StoredWeights"
# Layers whose from_config accepts more arguments than their constructor.
_OWN_FROM_CONFIG = frozenset({"TextVectorization", "StringLookup", "IntegerLookup", "Hashing"})
_RENAMED_CLASSES = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "LSTMV1": "LSTM",
    "GRUV1": "GRU",
    # Their names in TensorFlow 2.0 alpha and beta.
    "UnifiedLSTM": "LSTM",
    "UnifiedGRU": "GRU",
    "CuDNNLSTM": "LSTM",
    "CuDNNGRU": "GRU",
    "GroupedQueryAttention": "GroupQueryAttention",
    # Layers of keras.utils.FeatureSpace.
    "TFDConcat": "Concatenate",
    "TFDIdentity": "Identity",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
}

# Arguments without effect on predictions, dropped whatever their value.
_WITHOUT_EFFECT = frozenset(
    {"implementation", "input_length", "batch_input_shape", "batch_shape_hint", "input_dtype",
     "dynamic", "num_constants", "_keras_api_names", "experimental_autocast", "autocast_hint",
     "reset_after_hint", "query_shape", "key_shape", "value_shape", "fused", "adjustment",
     "renorm_clipping", "renorm_momentum", "synchronized", "sparse_grad", "robust_masking",
     "softmax_robust_masking", "trainable", "rng_type"}
)  # fmt: skip
# Layers that change images in training only, and whose place in Keras 3 another one takes.
_TRAINING_ONLY = frozenset({"RandomHeight", "RandomWidth"})
_SHEAR_FACTORS = ("x_factor", "y_factor")
# Arguments of preprocessing layers before Keras 2.6.
_RENAMED_ARGUMENTS = {
    "Discretization": {"bins": "bin_boundaries"},
    "CategoryEncoding": {"max_tokens": "num_tokens"},
}
# Arguments that are dropped only if they have this value.
_DEFAULTS = {
    "time_major": False, "ragged": False, "sparse": False, "causal": False, "renorm": False,
    "virtual_batch_size": None, "groups": 1, "dtype": None, "zero_output_for_mask": False,
    "stateful": False, "batch_size": None, "build_input_shape": None,
    "activity_regularizer": None, "noise_shape": None, "seed": None, "unroll": False,
    "keepdims": False, "autocast": True, "optional": False, "rms_scaling": False,
}  # fmt: skip
# Arguments that have no effect outside training; in Keras 2, None is as 0.
_OPTIONAL_RATES = {"GaussianNoise": "stddev", "MultiHeadAttention": "dropout",
                   **dict.fromkeys(("Dropout", "SpatialDropout1D", "SpatialDropout2D",
                                    "SpatialDropout3D"), "rate")}  # fmt: skip
HARD_SIGMOID_NOTE = "hard_sigmoid is computed as in Keras 2 (0.2x+0.5)."
STATE_RESET_NOTE = (
    "was stateful; every sequence starts from the initial state. Pass --states to make the state "
    "an input and an output."
)
_RECURRENT = frozenset({"LSTM", "GRU", "SimpleRNN", "LSTMCell", "GRUCell", "SimpleRNNCell",
                        "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"})  # fmt: skip


def migrate(class_name: str, config: Config, ctx: Context) -> tuple[str, dict[str, Any]]:
    """Return class name and config of a built-in layer; wrapped layers must be migrated already.

    Raises :class:`UnsupportedModelError` if the current Keras has no equivalent of an argument.
    """
    new = {key: _migrate_value(key, value, ctx) for key, value in config.items()}
    name = str(config.get("name"))
    if class_name in ("CuDNNLSTM", "CuDNNGRU"):
        new = _cudnn(class_name, new, ctx)
    current = _RENAMED_CLASSES.get(class_name, class_name)
    if class_name == "Layer" and ctx.major < 3:
        current = "Identity"  # the call of the class of all layers returned its inputs
    if current in ("GRU", "GRUCell"):
        new = _gru(name, new, ctx)
    if current == "BatchNormalization" and isinstance(new.get("axis"), list):
        new["axis"] = new["axis"][0] if len(new["axis"]) == 1 else new["axis"]
    if current in _OPTIONAL_RATES and new.get(_OPTIONAL_RATES[current], 0) is None:
        new[_OPTIONAL_RATES[current]] = 0.0
    if current == "GaussianNoise" and new.get("stddev", 0) > 1:
        new["stddev"] = 1.0  # the most in Keras 3; it has no effect outside training
    if current == "LeakyReLU" and "alpha" in new:
        new["negative_slope"] = stored_number(new.pop("alpha"))
    if current == "InputLayer" and "batch_input_shape" in new:
        new["batch_shape"] = new.pop("batch_input_shape")
    if current == "InputLayer" and new.pop("ragged", False):
        ctx.notes.append(
            f"{name}: takes ragged tensors in Keras, of sequences of several lengths. Here all "
            "sequences have one length, and padding counts as steps unless the model masks it."
        )
    renamed = _RENAMED_ARGUMENTS.get(current, {})
    new = {renamed.get(key, key): value for key, value in new.items()}
    if current == "Discretization" and "int" in str(new.get("dtype")):
        # Keras 3 would round the inputs to this type of the outputs.
        del new["dtype"]
    if current == "CategoryEncoding" and new.get("output_mode") == "binary":
        new["output_mode"] = "multi_hot"
    if current in _TRAINING_ONLY:
        return "Identity", {"name": name}
    if current == "RandomCrop" and ctx.major < 3:
        # Outside training, Keras 2 resizes the image; Keras 3 returns it unchanged.
        size = {"height": new["height"], "width": new["width"]}
        size["data_format"] = "channels_last"
        return "Resizing", {"name": name, "crop_to_aspect_ratio": True, **size}
    if current == "RandomShear":
        # Keras 3 does not accept the range that it stores for one number.
        new = {key: _shear_factor(value) if key in _SHEAR_FACTORS else value
               for key, value in new.items()}  # fmt: skip
    if current == "Normalization" and new.get("mean") is not None:
        mean, variance = np.broadcast_arrays(new["mean"], new["variance"])
        new |= {"mean": mean.tolist(), "variance": variance.tolist()}
    if current in ("ReLU", "LeakyReLU", "ELU"):
        new = {key: stored_number(value) for key, value in new.items()}
    if ctx.major < 3 and current in _RECURRENT and new.pop("time_major", False):
        raise Keras3ModelError(
            f"Layer {name!r} expects the time axis first (time_major=True), which Keras 3 does not "
            "support.",
            hint="Rebuild the model with time_major=False and load its weights; they fit.",
        )
    if new.get("stateful"):
        ctx.notes.append(f"{name}: {STATE_RESET_NOTE}")
        ctx.stateful.append(safe_name(name))
        new["stateful"] = False
    new.pop("causal", None)  # migrated with the calls of the layer
    return current, _accepted_only(current, new, ctx)


def _shear_factor(value: Any) -> Any:
    """Return the number ``f`` for the range from ``-f`` to ``f``."""
    if isinstance(value, list | tuple) and len(value) == 2 and value[0] == -value[1]:
        return value[1]
    return value


def _accepted_only(class_name: str, config: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Return the config without arguments that have no effect; refuse unknown ones that have."""
    accepted = ctx.accepted(class_name)
    if accepted is None or class_name in _OWN_FROM_CONFIG:
        return {key: value for key, value in config.items() if key != "batch_input_shape"}
    migrated = {}
    for key, value in config.items():
        if key in accepted:
            migrated[key] = value
        elif key in _WITHOUT_EFFECT or key.endswith(
            ("_initializer", "_regularizer", "_constraint")
        ):
            continue
        elif key not in _DEFAULTS or value != _DEFAULTS[key]:
            raise Keras3ModelError(
                f"Layer {config.get('name')!r} is a {class_name!r} with {key}="
                f"{beginning(repr(value), 80)}, which Keras 3 does not support. Its stored config: "
                f"{abbreviated(config)}",
                hint="If it is your own class with the name of a Keras class, pass it: "
                "--custom-objects FILE.py",
            )
    if ctx.major < 3 and "data_format" in accepted:
        # Layers lack it if their class had no such argument then.
        migrated.setdefault("data_format", "channels_last")
    return migrated


def _migrate_value(key: str, value: Any, ctx: Context) -> Any:
    """Return one argument; only initializers, regularizers, activations and dtypes change."""
    if key.endswith("_initializer"):
        return {"class_name": "StoredWeights", "config": {}, "registered_name": STORED_WEIGHTS,
                "module": None}  # fmt: skip
    if key.endswith(("_regularizer", "_constraint")):
        return None
    if key.endswith("activation"):
        return activation(value, ctx)
    if key == "dtype":
        return dtype_name(value)
    return value


def activation(value: Any, ctx: Context) -> Any:
    """Return an activation that computes as in the Keras that wrote the file.

    ``hard_sigmoid`` clips 0.2x + 0.5 in Keras 1 and 2, and x/6 + 0.5 in Keras 3.
    """
    if isinstance(value, dict) and value.get("class_name") == "function":
        value = value.get("config")
    if isinstance(value, dict) and isinstance(value.get("config"), str):
        value = value["config"]
    if isinstance(value, dict) and "class_name" in value:
        return keras_layer(*migrate(str(value["class_name"]), value.get("config") or {}, ctx))
    if not isinstance(value, str):
        return value
    of_keras_2 = value == "hard_sigmoid" and ctx.era < 3
    own = ctx.custom_objects.get(unqualified(value))
    if isinstance(own, own_functions.UnclearFunction) and ">" not in value:
        # Importing it imports Keras, which the other functions here do not need.
        from edgeattn_converters.loading.migrate.registered_objects import hard_sigmoid_keras2

        of_keras = hard_sigmoid_keras2 if of_keras_2 else own_functions.activations()[value]
        own.require_equal(of_keras)
    elif own is not None:
        return _function(registered_name(value))
    if of_keras_2:
        ctx.notes.append(HARD_SIGMOID_NOTE)
        return _function(HARD_SIGMOID)
    return {"softmax_v2": "softmax", "tf_softmax": "softmax"}.get(value, value)


def _function(registered: str) -> dict[str, Any]:
    """Return a function in the form that Keras 3 stores."""
    return {"module": "builtins", "class_name": "function", "config": registered,
            "registered_name": registered}  # fmt: skip


def dtype_name(value: Any) -> Any:
    """Return the name of a dtype or dtype policy, which every Keras version accepts."""
    if isinstance(value, dict):
        inner = value.get("config")
        if value.get("class_name") in ("Policy", "PolicyV1", "DTypePolicy", "FloatDTypePolicy"):
            return inner.get("name") if isinstance(inner, dict) else value
        return value
    return "float32" if value in ("float32_ref", "_infer", "infer") else value


def _gru(name: str, config: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Set ``reset_after``, which old files do not contain and whose default has changed."""
    stored = ctx.shapes(name)
    arrays = [(path, shape) for path, shape in stored if f"{name}/" in path] or stored
    biases = [shape for path, shape in arrays if "bias" in path.rsplit("/", 1)[-1]]
    after = any(len(shape) == 2 for shape in biases)
    if "reset_after" in config:
        # The bias of a CuDNN layer has one axis and is split when it is assigned.
        gates = 3 * int(config["units"])
        implied = {math.prod(shape) for shape in biases} & {gates, 2 * gates}
        if implied and bool(config["reset_after"]) != (2 * gates in implied):
            after = 2 * gates in implied
            ctx.notes.append(f"{name}: reset_after={after}, as the shape of its bias implies.")
            return {**config, "reset_after": after}
        return config
    reason = "the shape of its bias" if biases else "the default of its Keras version"
    ctx.notes.append(f"{name}: the file has no reset_after; {reason} implies {after}.")
    return {**config, "reset_after": after}


def _cudnn(class_name: str, config: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Return the config of the portable layer that computes the same as a CuDNN layer."""
    portable = class_name.removeprefix("CuDNN")
    ctx.notes.append(f"{config.get('name')}: replaced {class_name} with an equivalent {portable}.")
    fixed: dict[str, Any] = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    if class_name == "CuDNNGRU":
        fixed["reset_after"] = True
    return {**config, **fixed}
