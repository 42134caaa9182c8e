"""Models that Keras has quantized: ``model.quantize("int8")``, int4, float8, GPTQ and AWQ.

No runtime has the operators of these layers. Their weights become the float32 values that the
integers stand for; the layers compute with them, and with activations that are not rounded.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeattn.bundle.dequantized import DEQUANTIZED
from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.keras_classes import derives_from
from edgeattn_converters.loading.migrate.context import Shape
from edgeattn_converters.loading.own_code import subclassed

_POLICIES = frozenset(
    {"QuantizedDTypePolicy", "QuantizedFloat8DTypePolicy", "Int4DTypePolicy", "GPTQDTypePolicy",
     "AWQDTypePolicy"}
)  # fmt: skip
_HINT = "Convert the model that was quantized: edgeattn has int8 and int4 schemes of its own."
_LORA = ("lora_rank", "lora_alpha")
# Keras 3.15 leaves the zero points of these out of .keras and .weights.h5 files.
_WITH_ZERO_POINTS = ("gptq", "awq")
_WEIGHTS = ("kernel", "embeddings")
SEED, SAMPLES, TOKENS = 20160217, 32, 2
# The length of a free axis of the generated inputs.
STEPS = 8
# Numbers of arrays besides kernel and bias.
FLOAT8_SCALES, INT4_IN_GROUPS = 6, 3
# Packed kernel, scales and groups; AWQ has scales of the inputs, too.
GPTQ_WITHOUT_ZERO_POINTS = 3


def is_quantized(model: Any) -> bool:
    """Return whether Keras has quantized a layer of the model, or of a layer such as a wrapper."""
    return any(getattr(layer, "quantization_mode", None) for layer in model._flatten_layers())


def weights_error(name: str) -> UnsupportedModelError:
    """Return the error for quantized weights of a model that cannot be built a second time."""
    return UnsupportedModelError(
        f"Keras had quantized the layers of the model whose weights {name} contains, and the "
        "model of --architecture has layers or functions of your own.",
        hint="Save the whole model: model.save('model.keras'), and pass the file of your classes: "
        "--custom-objects FILE.py",
    )


def is_float8(shapes: Sequence[Shape]) -> bool:
    """Return whether arrays of a layer, as Keras stores them, end with the scales of float8.

    Their weights are float32. A scale and its history follow for inputs, weights and gradients.
    """
    scales = list(shapes)[-FLOAT8_SCALES:]
    histories = set(scales[1::2])
    return (
        len(shapes) > FLOAT8_SCALES
        and set(scales[::2]) == {()}
        and len(histories) == 1
        and all(len(shape) == 1 for shape in histories)
    )


def quantize_as_stored(layer: Any, arrays: Sequence[Any]) -> None:
    """Give a float layer inside another one the variables of the quantized layer that is stored.

    The config of MultiHeadAttention does not contain the quantization of its inner layers, nor
    does that of a class of the user, nor a function that builds the model before it was quantized.
    """
    import keras

    weights = next((getattr(layer, name) for name in _WEIGHTS if hasattr(layer, name)), None)
    if getattr(layer, "quantization_mode", None) is not None or weights is None:
        return
    if type(layer).quantize is keras.layers.Layer.quantize:
        return  # a class of the user may have integers as weights itself
    bias = getattr(layer, "bias", None) is not None
    kernel, *others = arrays
    if kernel.dtype == np.float32 and len(others) == bias + FLOAT8_SCALES:
        layer.quantize("float8")
    elif kernel.dtype == np.int8 and kernel.shape == tuple(weights.shape):
        layer.quantize("int8")
    elif kernel.dtype == np.int8:
        # With a zero point, the index of the group follows for each input.
        groups = others[-1].tolist() if len(others) == bias + INT4_IN_GROUPS else None
        size = -1 if groups is None else groups.count(groups[0])
        config = keras.quantizers.Int4QuantizationConfig(block_size=size)
        layer.quantize("int4", config=config)
    elif any(array.dtype == np.uint8 for array in arrays):
        scales = len(arrays) - bias - GPTQ_WITHOUT_ZERO_POINTS
        raise _zero_points_error(layer, _WITH_ZERO_POINTS[scales > 0], "lacks some of its")


def quantize_parts_as_stored(layer: Any, arrays: Mapping[str, Any]) -> None:
    """Quantize the float layers inside another one like those in a ``.h5`` file.

    ``arrays`` are those of the layer by path: ``"mha/query/kernel"``.
    """
    for part in layer._flatten_layers(include_self=False):
        stored = {
            path.rsplit("/", 1)[-1].split(":")[0]: array
            for path, array in arrays.items()
            if part.name in path.split("/")[:-1]
        }
        if any(name in stored for name in _WEIGHTS):
            first = [stored.pop(name) for name in (*_WEIGHTS, "bias") if name in stored]
            quantize_as_stored(part, [*first, *stored.values()])


def check_complete(layer: Any, stored: int, variables: int) -> None:
    """Raise :class:`UnsupportedModelError` if Keras did not save all variables of a layer."""
    mode = str(getattr(layer, "quantization_mode", None))
    if mode in _WITH_ZERO_POINTS and stored != variables:
        raise _zero_points_error(layer, mode, f"contains {stored} of its {variables}")


def _zero_points_error(layer: Any, mode: str, has: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Layer {layer.name!r} was quantized as {mode!r}, and the file {has} variables: "
        "Keras leaves the zero points out of .keras and .weights.h5 files, and cannot load these "
        "itself.",
        hint="Convert the model that was quantized (edgeattn has int8 and int4 schemes of its "
        "own), or save the quantized one with model.save('model.h5').",
    )


def in_float(config: Any) -> Any:
    """Return a migrated config in which every quantized dtype policy is float32."""
    if isinstance(config, list | tuple):
        return type(config)(in_float(item) for item in config)
    if not isinstance(config, dict):
        return config
    if _is_quantized_policy(config.get("dtype")):
        # The low-rank update of the weights (LoRA) becomes part of them.
        config = {**config, **{key: None for key in _LORA if key in config}}
    return {
        key: "float32"
        if key == "dtype" and _is_quantized_policy(value)
        else None
        if key == "quantization_config" and value
        else in_float(value)
        for key, value in config.items()
    }


def _is_quantized_policy(value: Any) -> bool:
    if isinstance(value, dict) and value.get("class_name") == "DTypePolicyMap":
        config = value.get("config") or {}
        policies = [config.get("default_policy"), *(config.get("policy_map") or {}).values()]
        return any(map(_is_quantized_policy, policies))
    if isinstance(value, dict):
        return value.get("class_name") in _POLICIES
    return isinstance(value, str) and "_from_" in value


def assign_dequantized(model: Any, quantized: Any) -> str:
    """Assign the values of a quantized model to the float model of the same config.

    ``quantized`` must not be used afterwards. Returns a note with the difference of the outputs.

    Raises :class:`UnsupportedModelError` if a layer is quantized in an unknown way, or if Keras
    itself does not compute with what the integers stand for.
    """
    _check_direct_calls(quantized)
    for layer in quantized._flatten_layers():
        # A stored layer is always calibrated.
        for name in ("is_gptq_calibrated", "is_awq_calibrated"):
            if hasattr(layer, name):
                setattr(layer, name, True)
    called = _as_functional(quantized)
    inputs = _samples(called)
    expected = _outputs(called, inputs)
    pairs = list(zip(model._flatten_layers(), quantized._flatten_layers(), strict=True))
    modes = []
    for target, source in pairs:
        mode = getattr(source, "quantization_mode", None)
        if mode is None or not _own_variables(source):
            for variable, value in zip(_own_variables(target), _own_variables(source), strict=True):
                variable.assign(value)
            continue
        modes.append(str(mode))
        _assign_layer(target, source, str(mode))
    counts = ", ".join(f"{modes.count(mode)} in {mode}" for mode in dict.fromkeys(modes))
    largest = max(float(np.abs(output).max(initial=0.0)) for output in expected)
    error = max(
        float(np.abs(actual - output).max(initial=0.0))
        for actual, output in zip(_outputs(_as_functional(model), inputs), expected, strict=True)
    )
    return (
        f"{DEQUANTIZED} ({counts}). They are loaded with the float32 values of their weights, and "
        f"their activations are not rounded: on {SAMPLES} generated inputs, the outputs differ "
        f"from those of the quantized model by up to {error:.2g} (largest output {largest:.2g}); "
        "on other inputs, they may differ more."
    )


def _check_direct_calls(quantized: Any) -> None:
    """Raise :class:`UnsupportedModelError` if Keras computes with integers as if they were weights.

    TimeDistributed calls its layer in a way that leaves out the quantization, and the weights of
    all modes but float8 are stored as integers.
    """
    import keras

    for layer in quantized._flatten_layers():
        if not isinstance(layer, keras.layers.TimeDistributed):
            continue
        inner = layer.layer
        mode = getattr(inner, "quantization_mode", None)
        if mode not in (None, "float8") and _own_variables(inner):
            raise UnsupportedModelError(
                f"Layer {inner.name!r} inside {layer.name!r} was quantized as {str(mode)!r}: "
                f"Keras {keras.__version__} computes TimeDistributed with the stored integers, "
                "without their scale, so that the outputs of this model are wrong in Keras too.",
                hint="Convert the model that was quantized (edgeattn has int8 and int4 schemes of "
                "its own). A Dense layer computes the same without TimeDistributed.",
            )


def _own_variables(layer: Any) -> list[Any]:
    seeds = {id(variable) for variable in getattr(layer, "_seed_generators", ())}
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    return [variable for variable in own if id(variable) not in seeds]


def _assign_layer(target: Any, source: Any, mode: str) -> None:
    """Assign what a quantized layer computes with; it becomes linear, without bias."""
    import keras
    from keras import ops

    if getattr(source, "bias", None) is not None:
        bias = ops.cast(source.bias, "bfloat16") if mode == "float8" else source.bias
        target.bias.assign(ops.cast(bias, "float32"))
        source.bias.assign(ops.zeros(source.bias.shape))
    for name in ("activation", "logit_soft_cap"):
        if hasattr(source, name):
            setattr(source, name, None)
    kind = type(source).__name__
    if mode == "float8":
        kernel = keras.quantizers.quantize_and_dequantize(
            ops.convert_to_tensor(source._kernel), ops.convert_to_tensor(source.kernel_scale),
            "float8_e4m3fn", "float32",
        )  # fmt: skip
        target.kernel.assign(kernel)
    elif kind == "Dense":
        # A row with a single 1 is quantized without an error.
        target.kernel.assign(source(np.eye(target.kernel.shape[0], dtype="float32")))
    elif kind == "EinsumDense":
        target.kernel.assign(_einsum_kernel(source, target.kernel.shape))
    elif kind in ("Embedding", "ReversibleEmbedding"):
        target.embeddings.assign(source(np.arange(source.input_dim)))
        if getattr(source, "tie_weights", True) is False:
            unit = np.eye(source.output_dim, dtype="float32")
            target.reverse_embeddings.assign(source(unit, reverse=True))
    else:
        raise UnsupportedModelError(
            f"Layer {source.name!r} is a {kind} that is quantized as {mode!r}, which is unknown.",
            hint=_HINT,
        )


def _einsum_kernel(layer: Any, shape: Sequence[int]) -> Any:
    """Return the kernel of a linear EinsumDense from its outputs for inputs with a single 1."""
    operands, result = layer.equation.replace("...", "Z").split("->")
    inputs, kernel = operands.split(",")
    sizes = dict(zip(kernel, shape, strict=True))
    contracted = [letter for letter in inputs if letter in kernel and letter not in result]
    rows = next(letter for letter in inputs if letter not in kernel)
    count = math.prod(sizes[letter] for letter in contracted)
    ones = np.eye(count, dtype="float32").reshape(count, *(sizes[c] for c in contracted))
    # The other axes of the inputs have the size 1, or repeat the row.
    one_sizes = {**dict.fromkeys(inputs, 1), rows: count, **sizes}
    order = [rows, *contracted]
    expanded = ones.reshape(*ones.shape, *[1] * (len(inputs) - len(order)))
    order += [letter for letter in inputs if letter not in order]
    placed = expanded.transpose([order.index(letter) for letter in inputs])
    x = np.broadcast_to(placed, [one_sizes[letter] for letter in inputs])
    y = np.asarray(layer(np.ascontiguousarray(x)))
    kept = [letter for letter in result if letter == rows or letter in kernel]
    y = y.reshape([y.shape[result.index(letter)] for letter in kept])
    others = [letter for letter in kept if letter != rows]
    y = y.transpose([kept.index(letter) for letter in (rows, *others)])
    y = y.reshape(*(sizes[letter] for letter in contracted), *y.shape[1:])
    order = [*contracted, *others]
    return y.transpose([order.index(letter) for letter in kernel])


def _as_functional(model: Any) -> Any:
    """A model of the user's own class lists its inputs only when it is called."""
    return subclassed.as_functional(model, {}, None, allow_free_time=True)


def _samples(model: Any) -> list[Any]:
    generator = np.random.default_rng(SEED)
    vocabulary = [
        layer.input_dim for layer in model._flatten_layers() if derives_from(layer, "Embedding")
    ]
    samples = []
    for tensor in model.inputs:
        shape = (SAMPLES, *(size or STEPS for size in tensor.shape[1:]))
        values: Any
        if vocabulary and len(shape) == TOKENS:
            values = generator.integers(0, min(vocabulary), shape)
        else:
            values = generator.normal(size=shape)
        samples.append(values.astype(tensor.dtype))
    return samples


def _outputs(model: Any, inputs: list[Any]) -> list[Any]:
    import keras

    struct = getattr(model, "_inputs_struct", None)
    # A Sequential model has a single input.
    packed = inputs[0] if struct is None else keras.tree.pack_sequence_as(struct, inputs)
    return [np.asarray(value) for value in keras.tree.flatten(model(packed, training=False))]
