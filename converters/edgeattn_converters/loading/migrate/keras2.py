"""A built-in layer's config of Keras 2 or 3, put into the words of today's Keras.

What was trained stays as it was trained: an argument that changes what is computed is translated
or refused, never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.migrate.context import Config, Context, safe_name, shown

HARD_SIGMOID = "edgeattn>hard_sigmoid_keras2"
STORED = "edgeattn>StoredWeights"
THRESHOLDED_RELU = "edgeattn>ThresholdedReLU"
HIGHWAY = "edgeattn>Highway"
ATTENTION_HEADS = "edgeattn>LegacyMultiHeadAttention"
MERGE = "edgeattn>LegacyMerge"
CONCATENATE = "edgeattn>LegacyConcatenate"
IGNORE = "ignore"
# Their configs hold more than their constructors take.
_READ_OTHERWISE = frozenset({"TextVectorization", "StringLookup", "IntegerLookup", "Hashing"})
_MERGES = frozenset({"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"})

_CLASSES = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "LSTMV1": "LSTM",
    "GRUV1": "GRU",
    "CuDNNLSTM": "LSTM",
    "CuDNNGRU": "GRU",
    "GroupedQueryAttention": "GroupQueryAttention",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
}

# Arguments without a meaning at prediction, or without one any more: dropped whatever they say.
_IDLE = frozenset(
    {"implementation", "input_length", "batch_input_shape", "batch_shape_hint", "input_dtype",
     "dynamic", "num_constants", "_keras_api_names", "experimental_autocast", "autocast_hint",
     "reset_after_hint", "query_shape", "key_shape", "value_shape", "fused", "adjustment",
     "renorm_clipping", "renorm_momentum", "synchronized", "sparse_grad", "robust_masking",
     "softmax_robust_masking"}
)  # fmt: skip
# Arguments that may be dropped only with this value.
_ONLY = {
    "time_major": False, "ragged": False, "sparse": False, "causal": False, "renorm": False,
    "virtual_batch_size": None, "groups": 1, "dtype": None, "zero_output_for_mask": False,
    "stateful": False, "batch_size": None, "build_input_shape": None,
    "activity_regularizer": None, "noise_shape": None, "seed": None, "unroll": False,
    "keepdims": False, "autocast": True, "optional": False, "rms_scaling": False,
}  # fmt: skip
STATE_RESET_NOTE = (
    "was stateful; here every sequence starts from a clean state. With --states its state is an "
    "input and an output."
)
_RECURRENT = frozenset({"LSTM", "GRU", "SimpleRNN", "LSTMCell", "GRUCell", "SimpleRNNCell",
                        "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"})  # fmt: skip


def layer(class_name: str, config: Config, ctx: Context) -> tuple[str, dict[str, Any]]:
    """Translate one built-in layer. Requires wrapped layers to be translated already.

    Raises:
        UnsupportedModelError: an argument that today's Keras cannot honour.
    """
    new = {key: _part(key, value, ctx) for key, value in config.items()}
    name = str(config.get("name"))
    if class_name in ("CuDNNLSTM", "CuDNNGRU"):
        new = _cudnn(class_name, new, ctx)
    today = _CLASSES.get(class_name, class_name)
    if today in ("GRU", "GRUCell"):
        new = _gru(name, new, ctx)
    if today == "BatchNormalization" and isinstance(new.get("axis"), list):
        new["axis"] = new["axis"][0] if len(new["axis"]) == 1 else new["axis"]
    if today == "LeakyReLU" and "alpha" in new:
        new["negative_slope"] = _number(new.pop("alpha"))
    if today == "InputLayer" and "batch_input_shape" in new:
        new["batch_shape"] = new.pop("batch_input_shape")
    if today in ("ReLU", "LeakyReLU", "ELU"):
        new = {key: _number(value) for key, value in new.items()}
    if ctx.era < 3 and today in _RECURRENT and new.pop("time_major", False):
        raise UnsupportedModelError(
            f"{name!r} takes the time axis first (time_major=True), which Keras 3 cannot",
            hint="Rebuild the model with time_major=False; its weights fit unchanged.",
        )
    if new.get("stateful"):
        ctx.note(f"{name}: {STATE_RESET_NOTE}")
        ctx.stateful(safe_name(name))
        new["stateful"] = False
    new.pop("causal", None)  # translated where the layer is called
    return today, _known_only(today, new, ctx)


def of_ours(class_name: str, config: Config, ctx: Context) -> tuple[str, dict[str, Any]] | None:
    """Our own layer and its config, where today's Keras has none that computes the same."""
    name = config.get("name")
    if class_name in ("ThresholdedReLU", "Highway"):
        ctx.note(f"{name}: {class_name}, which Keras no longer has, became edgeattn's own.")
        registered = THRESHOLDED_RELU if class_name == "ThresholdedReLU" else HIGHWAY
        return registered, dict(config)
    if not ctx.masked or not ctx.version:
        return None
    if class_name == "MultiHeadAttention" and ctx.version < (3, 10):
        # From 2.10 on it takes the masks of its inputs into account.
        masks = IGNORE if ctx.version < (2, 10) else "add"
        ctx.note(f"{name}: MultiHeadAttention treats masks as in Keras {_shown(ctx.version)}.")
        return ATTENTION_HEADS, {**config, "masks": masks}
    if ctx.era < 3 and class_name in _MERGES:
        return MERGE, {"name": name, "operation": class_name, "dtype": config.get("dtype")}
    if ctx.era < 3 and class_name == "Concatenate":
        return CONCATENATE, dict(config)
    return None


def _shown(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def _known_only(class_name: str, config: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Drop what has no meaning today. Ensures that nothing with a meaning is dropped."""
    accepted = ctx.accepted(class_name)
    if accepted is None or (ctx.era == 3 and class_name in _READ_OTHERWISE):
        return config
    kept = {}
    for key, value in config.items():
        if key in accepted:
            kept[key] = value
        elif key in _IDLE or key.endswith(("_initializer", "_regularizer", "_constraint")):
            continue
        elif key not in _ONLY or value != _ONLY[key]:
            raise UnsupportedModelError(
                f"layer {config.get('name')!r} is a {class_name!r} with {key}={value!r:.80}, which "
                f"today's Keras does not know. It was saved with {shown(config)}",
                hint="If it is a class of your own with a name that Keras uses too, give it with "
                "--custom-objects FILE.py.",
            )
    return kept


def _part(key: str, value: Any, ctx: Context) -> Any:
    """One value: initializers, regularizers, activations, dtypes; the rest as it is."""
    if key.endswith("_initializer"):
        return {"class_name": "StoredWeights", "config": {}, "registered_name": STORED,
                "module": None}  # fmt: skip
    if key.endswith(("_regularizer", "_constraint")):
        return None
    if key.endswith("activation"):
        return activation(value, ctx)
    if key == "dtype":
        return dtype(value)
    return value


def activation(value: Any, ctx: Context) -> Any:
    """An activation by name, as the era of the file computed it.

    Keras 2 computed ``hard_sigmoid`` as 0.2x+0.5, Keras 3 computes x/6+0.5.
    """
    if isinstance(value, dict) and value.get("class_name") == "function":
        value = value.get("config")
    if isinstance(value, dict) and isinstance(value.get("config"), str):
        value = value["config"]
    if isinstance(value, dict) and "class_name" in value:
        class_name, config = layer(str(value["class_name"]), value.get("config") or {}, ctx)
        return {"module": "keras.layers", "class_name": class_name, "config": config,
                "registered_name": None}  # fmt: skip
    if not isinstance(value, str):
        return value
    if value in ctx.custom:
        return value
    if value == "hard_sigmoid" and ctx.era < 3:
        ctx.note("hard_sigmoid is kept as Keras 2 computed it (0.2x+0.5).")
        return {"module": "builtins", "class_name": "function", "config": HARD_SIGMOID,
                "registered_name": HARD_SIGMOID}  # fmt: skip
    return {"softmax_v2": "softmax", "tf_softmax": "softmax"}.get(value, value)


def dtype(value: Any) -> Any:
    """A dtype or a policy, as its name, which every era understands."""
    if isinstance(value, dict):
        inner = value.get("config")
        if value.get("class_name") in ("Policy", "PolicyV1", "DTypePolicy", "FloatDTypePolicy"):
            return inner.get("name") if isinstance(inner, dict) else value
        return value
    return "float32" if value in ("float32_ref", "_infer", "infer") else value


def _gru(name: str, config: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Say which of the two GRUs it is. Old files do not, and the default has changed."""
    if "reset_after" in config:
        return config
    stored = ctx.shapes(name)
    own = [(path, shape) for path, shape in stored if f"{name}/" in path] or stored
    biases = [shape for path, shape in own if "bias" in path.rsplit("/", 1)[-1]]
    after = any(len(shape) == 2 for shape in biases)
    reason = "by the shape of its bias" if biases else "as Keras computed then"
    ctx.note(f"{name}: the file does not say reset_after; {after}, {reason}.")
    return {**config, "reset_after": after}


def _cudnn(class_name: str, config: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """A layer for NVIDIA's library as the layer that computes the same anywhere."""
    ctx.note(f"{config.get('name')}: {class_name} became a {class_name[5:]} of the same numbers.")
    fixed: dict[str, Any] = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    if class_name == "CuDNNGRU":
        fixed["reset_after"] = True
    return {**config, **fixed}


def _number(value: Any) -> Any:
    """A number that Keras 2 sometimes kept as a little array."""
    if isinstance(value, dict) and "value" in value:
        value = value["value"]
    if isinstance(value, dict) and isinstance(value.get("config"), Mapping):
        value = value["config"].get("value", value)
    return value[0] if isinstance(value, list) and len(value) == 1 else value
