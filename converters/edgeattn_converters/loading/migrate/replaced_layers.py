"""Layers of edgeattn that compute as built-in layers of the Keras that saved the file.

The current Keras does not have those layers, or computes something else with the same arguments.
"""

from typing import Any

from edgeattn.printable import keras_name
from edgeattn_converters.loading.config_inspection import Config, stored_number
from edgeattn_converters.loading.lambdas import expressions
from edgeattn_converters.loading.migrate.context import Context
from edgeattn_converters.loading.migrate.removed_classes import locally_connected_arguments

THRESHOLDED_RELU = "edgeattn>ThresholdedReLU"
HIGHWAY = "edgeattn>Highway"
MAXOUT_DENSE = "edgeattn>MaxoutDense"
RANDOM_FEATURES = "edgeattn>RandomFourierFeatures"
MULTI_HEAD_ATTENTION = "edgeattn>LegacyMultiHeadAttention"
SOFTMAX = "edgeattn>LegacySoftmax"
MERGE = "edgeattn>LegacyMerge"
CAUSAL = "edgeattn>CausalSeparableConv1D"
CONCATENATE = "edgeattn>LegacyConcatenate"
LOCALLY_CONNECTED = "edgeattn>LocallyConnected"
MEL_SPECTROGRAM = "edgeattn>MelSpectrogram"
UPSAMPLING = "edgeattn>LegacyUpSampling2D"
DISCRETIZATION = "edgeattn>AdaptedDiscretization"
IGNORE_MASKS, KEEP_MASKS = "ignore", "keep"
# The first version whose softmax has no weights in a row that is masked throughout.
EMPTY_ROWS = (3, 10)
_REPLACED = {
    "ThresholdedReLU": THRESHOLDED_RELU,
    "Highway": HIGHWAY,
    "MaxoutDense": MAXOUT_DENSE,
    "RandomFourierFeatures": RANDOM_FEATURES,
    "LocallyConnected1D": LOCALLY_CONNECTED,
    "LocallyConnected2D": LOCALLY_CONNECTED,
}
# Arguments with an effect of layers that have others, too.
_ARGUMENTS = {
    "Highway": ("activation", "use_bias"),
    "MaxoutDense": ("output_dim", "nb_feature", "use_bias"),
    "RandomFourierFeatures": ("output_dim",),
}
MERGE_LAYERS = frozenset({"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"})


def replacement(
    class_name: str, config: Config, ctx: Context, *, takes_mask: bool = False
) -> tuple[str, dict[str, Any]] | None:
    """Return registered name and config of a layer of edgeattn that computes as the old Keras did.

    ``takes_mask`` says whether a call of the layer names a mask. None if the current Keras has a
    layer that computes the same.
    """
    name = config.get("name")
    if class_name in _REPLACED:
        ctx.notes.append(
            f"{name}: replaced {class_name}, which Keras 3 does not have, with a layer of edgeattn."
        )
        if _REPLACED[class_name] == LOCALLY_CONNECTED:
            config = locally_connected_arguments(config)
        if names := _ARGUMENTS.get(class_name):
            config = {key: config[key] for key in ("name", *names) if key in config}
        return _REPLACED[class_name], dict(config)
    if class_name == "Discretization" and ctx.era < 3 and not config.get("bin_boundaries"):
        return DISCRETIZATION, {**config, "bin_boundaries": None}
    if has_own_axes(class_name, config.get("axis")):
        return f"edgeattn>{class_name}", dict(config)
    if class_name == "UpSampling2D" and config.get("interpolation") == "bilinear":
        return _with_former_positions(config, ctx)
    if class_name == "SeparableConv1D" and config.get("padding") == "causal":
        return CAUSAL, dict(config)
    if class_name == "MelSpectrogram" and config.get("power_to_db", True):
        ctx.notes.append(
            f"{name}: top_db is relative to the maximum of each sample; Keras takes that of the "
            "batch."
        )
        return MEL_SPECTROGRAM, dict(config)
    return _with_former_masks(class_name, config, ctx, takes_mask=takes_mask)


def _with_former_positions(config: Config, ctx: Context) -> tuple[str, dict[str, Any]] | None:
    """As :func:`replacement`, for bilinear interpolation; that of Theano is not computed."""
    if ctx.positions is None or ctx.positions.is_theano:
        return None
    ctx.notes.append(f"{config.get('name')}: {ctx.positions.note}")
    return (UPSAMPLING, dict(config)) if ctx.positions.are_corners else None


def has_own_axes(class_name: str, axis: Any) -> bool:
    """Return whether a layer normalizes along axes, or in an order of them, that Keras 3 lacks."""
    if not isinstance(axis, list | tuple) or len(axis) < 2:
        return False
    if class_name == "LayerNormalization":
        # Keras 3 sorts them, before it knows which axes the negative ones are.
        return list(axis) != sorted(axis) or min(axis) < 0 <= max(axis)
    return class_name == "BatchNormalization"


def _with_former_masks(
    class_name: str, config: Config, ctx: Context, *, takes_mask: bool
) -> tuple[str, dict[str, Any]] | None:
    """As :func:`replacement`, for layers that use or pass on masks otherwise than the current."""
    name = config.get("name")
    if not (ctx.masked or takes_mask) or not ctx.version:
        return None
    if class_name in ("MultiHeadAttention", "Softmax") and ctx.version < EMPTY_ROWS:
        if class_name == "MultiHeadAttention" or takes_mask:
            saved_by = keras_name(".".join(map(str, ctx.version)))
            ctx.notes.append(f"{name}: {class_name} treats masks as in {saved_by}.")
        if class_name == "Softmax":
            return SOFTMAX, dict(config)
        # Since 2.10 the layer applies the masks of its inputs.
        masks = "add" if ctx.era >= 3 else KEEP_MASKS
        if ctx.version < (2, 10):
            masks = IGNORE_MASKS
        return MULTI_HEAD_ATTENTION, {**config, "masks": masks}
    if not ctx.masked or ctx.era >= 3:
        return None
    if class_name == "Identity":
        copied = expressions.operation("identity", expressions.INPUT)
        return expressions.REGISTERED, _without_mask(config, copied)
    if class_name == "Rescaling":
        scaled = expressions.operation("multiply", expressions.INPUT, _constant(config["scale"]))
        offset = _constant(config.get("offset", 0.0))
        return expressions.REGISTERED, _without_mask(
            config, expressions.operation("add", scaled, offset)
        )
    if class_name in MERGE_LAYERS:
        return MERGE, {"name": name, "operation": class_name, "dtype": config.get("dtype")}
    if class_name == "Concatenate":
        return CONCATENATE, dict(config)
    return None


def _without_mask(config: Config, expression: expressions.Expression) -> dict[str, Any]:
    """The config of an expression for a layer at which a mask ends in Keras 2, but not in 3."""
    return {"name": config.get("name"), "expression": expression, "dtype": config.get("dtype")}


def _constant(value: Any) -> expressions.Expression:
    return expressions.constant(stored_number(value))
