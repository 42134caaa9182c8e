"""Layers of Keras 1 and 2 that Keras 3 does not have, as functions that create them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeattn_converters.loading.legacy import legacy_arguments, recurrent_base
from edgeattn_converters.loading.legacy.legacy_program import Program, generated_name
from edgeattn_converters.loading.migrate import keras1
from edgeattn_converters.loading.migrate.removed_classes import locally_connected_arguments
from edgeattn_converters.loading.own_code.classes_of_keras_2 import FIRST_OF_TENSORFLOW

_PACKAGE = "edgeattn_converters.loading.migrate."
# Classes of edgeattn with the arguments of that of Keras 2.
_OF_KERAS = ("BatchNormalization", "LayerNormalization", "LocallyConnected",
             "SyncBatchNormalization", "TimeDistributed")  # fmt: skip
# Arguments of every layer.
_OF_LAYERS = frozenset({"name", "trainable", "dtype", "input_shape", "batch_shape"})
# The names of the arguments in place, those of CuDNN layers from the second one on.
_REGULARIZED = ("weights", "W_regularizer", "b_regularizer", "activity_regularizer",
                "W_constraint", "b_constraint", "bias")  # fmt: skip
_LOCAL = ("filters", "kernel_size", "strides", "padding", "data_format", "activation", "use_bias",
          "kernel_initializer", "bias_initializer", "kernel_regularizer", "bias_regularizer",
          "activity_regularizer", "kernel_constraint", "bias_constraint",
          "implementation")  # fmt: skip
_GATES = ("kernel_regularizer", "recurrent_regularizer", "bias_regularizer",
          "activity_regularizer", "kernel_constraint", "recurrent_constraint", "bias_constraint",
          "return_sequences", "return_state")  # fmt: skip
_INITIALIZERS = ("kernel_initializer", "recurrent_initializer", "bias_initializer")
_IN_PLACE = {
    "CuDNNGRU": (*_INITIALIZERS, *_GATES),
    "CuDNNLSTM": (*_INITIALIZERS, "unit_forget_bias", *_GATES),
    "Highway": ("init", "activation", *_REGULARIZED, "input_dim"),
    "MaxoutDense": ("output_dim", "nb_feature", "init", *_REGULARIZED, "input_dim"),
    "ThresholdedReLU": ("theta",),
    "TimeDistributedDense": ("output_dim", "init", "activation", *_REGULARIZED, "input_dim",
                             "input_length"),
    "Deconvolution2D": ("nb_filter", "nb_row", "nb_col", "output_shape", "init", "activation",
                        "weights", "border_mode", "subsample", "dim_ordering", "W_regularizer",
                        "b_regularizer", "activity_regularizer", "W_constraint", "b_constraint",
                        "bias"),
    "LocallyConnected1D": _LOCAL,
    "LocallyConnected2D": _LOCAL,
}  # fmt: skip
_OF_KERAS_1 = frozenset({"Highway", "MaxoutDense", "TimeDistributedDense", "Deconvolution2D"})


def functions(program: Program) -> dict[str, Callable[..., Any]]:
    """Return the functions that create the layers, by the name of the class."""
    import keras

    def creating(class_name: str, create: Callable[..., Any]) -> Callable[..., Any]:
        def layer(*values: Any, **named: Any) -> Any:
            program.is_keras_1 |= class_name in _OF_KERAS_1
            return create(*_arguments(class_name, values, named, program))

        return layer

    def dilated(cls: Any) -> Callable[..., Any]:
        def layer(*values: Any, **named: Any) -> Any:
            program.is_keras_1 = True
            return cls(*values, **named)

        return layer

    def unchanged(*_values: Any, name: str | None = None, **_named: Any) -> Any:
        return keras.layers.Identity(name=name)

    def synchronized(*values: Any, **named: Any) -> Any:
        from edgeattn_converters.loading.migrate.normalized_axes import SyncBatchNormalization

        return SyncBatchNormalization(*values, **named)

    found = {name: creating(name, create) for name, create in _CREATE.items()}
    return {
        **found,
        "AbstractRNNCell": _abstract_cell(),
        "Recurrent": recurrent_base.recurrent(),
        **dict.fromkeys(
            ("time_distributed_dense", "_time_distributed_dense"),
            recurrent_base.time_distributed_dense,
        ),
        "CuDNNLSTM": functools.partial(_cudnn_lstm, program),
        "CuDNNGRU": functools.partial(_cudnn_gru, program),
        "AtrousConvolution1D": dilated(keras.layers.Conv1D),
        "AtrousConvolution2D": dilated(keras.layers.Conv2D),
        "SyncBatchNormalization": synchronized,
        # They change images in training only.
        "RandomHeight": unchanged,
        "RandomWidth": unchanged,
    }


def is_legacy(layer: Any) -> bool:
    """Return whether a layer is one of edgeattn in place of one that Keras 3 lacks."""
    return type(layer).__module__.startswith(_PACKAGE)


def under_old_names(stored: Any) -> Any:
    """Return the config of a model with the layers of :func:`functions` as Keras 2 stores them."""
    if isinstance(stored, list):
        return [under_old_names(item) for item in stored]
    if not isinstance(stored, Mapping):
        return stored
    found = {key: under_old_names(value) for key, value in stored.items()}
    package, _, class_name = str(stored.get("registered_name")).partition(">")
    if package == "edgeattn" and class_name in (*_OF_KERAS, *_CREATE):
        if class_name == "LocallyConnected":
            class_name += f"{len(found['config']['kernel_size'])}D"
        found |= {"module": "keras.layers", "class_name": class_name, "registered_name": None}
    return found


def _arguments(
    class_name: str, values: Sequence[Any], named: Mapping[str, Any], program: Program
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of a layer by their names in Keras 2, and those that every layer has."""
    values = legacy_arguments.with_kernel(class_name, values, dict(named), program)
    found = {**_by_name(class_name, _IN_PLACE[class_name], values), **named}
    found = legacy_arguments.with_input_shape(class_name, found)
    if found.get("dim_ordering") == "default":
        del found["dim_ordering"]
    common = {key: found.pop(key) for key in _OF_LAYERS & found.keys()}
    if class_name != "Deconvolution2D":
        program.is_keras_1 |= keras1.has_arguments(class_name, found)
        found = dict(keras1.migrate(class_name, found)[1])
    return found, common


def _class(name: str, *names: str) -> Callable[..., Any]:
    """Return a function that creates a layer of edgeattn with some of the arguments."""

    def create(found: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
        from edgeattn_converters.loading.migrate import registered_objects

        given = {key: found[key] for key in names if key in found}
        return getattr(registered_objects, name)(**given, **common)

    return create


def _locally_connected(axes: int) -> Callable[..., Any]:
    def create(found: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
        import keras

        from edgeattn_converters.loading.migrate.locally_connected import LocallyConnected

        sizes = {"strides": 1, **found}
        for key in ("kernel_size", "strides"):
            sizes[key] = [sizes[key]] * axes if isinstance(sizes[key], int) else list(sizes[key])
        order = "channels_last" if axes == 1 else keras.config.image_data_format()
        arguments = locally_connected_arguments({"data_format": order, **sizes})
        return LocallyConnected(**arguments, **common)

    return create


def _dense_over_time(found: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
    import keras

    inner = {key: value for key, value in found["layer"]["config"].items() if key != "name"}
    return keras.layers.TimeDistributed(keras.layers.Dense(**inner), **common)


def _transposed(found: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
    import keras

    order = {} if "dim_ordering" in found else {"data_format": keras.config.image_data_format()}
    config = {"subsample": (1, 1), "border_mode": "valid", **order, **found}
    arguments = keras1.migrate("Deconvolution2D", config)[1]
    return keras.layers.Conv2DTranspose(**arguments, **common)


_CREATE: dict[str, Callable[..., Any]] = {
    "Highway": _class("Highway", "activation", "use_bias"),
    "MaxoutDense": _class("MaxoutDense", "output_dim", "nb_feature", "use_bias"),
    "ThresholdedReLU": _class("ThresholdedReLU", "theta"),
    "LocallyConnected1D": _locally_connected(1),
    "LocallyConnected2D": _locally_connected(2),
    "TimeDistributedDense": _dense_over_time,
    "Deconvolution2D": _transposed,
}


def _by_name(class_name: str, names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    if len(values) > len(names):
        raise TypeError(f"{class_name} has {len(names)} arguments in place, not {len(values)}.")
    # None is the default of each that has one.
    pairs = zip(names, values, strict=False)
    return {name: value for name, value in pairs if value is not None}


def _cudnn_lstm(program: Program, units: int, *args: Any, **kwargs: Any) -> Any:
    import keras

    named = {
        "name": generated_name("cu_dnnlstm"),
        **_of_cudnn("CuDNNLSTM", program, args),
        **kwargs,
    }
    return keras.layers.LSTM(units, **{**named, "recurrent_activation": "sigmoid"})


def _cudnn_gru(program: Program, units: int, *args: Any, **kwargs: Any) -> Any:
    import keras

    named = {**_of_cudnn("CuDNNGRU", program, args), **kwargs}
    named = {"name": generated_name("cu_dnngru"), **named, "recurrent_activation": "sigmoid"}
    return keras.layers.GRU(units, **named, reset_after=True)


def _of_cudnn(class_name: str, program: Program, args: Sequence[Any]) -> dict[str, Any]:
    # Only that of tf.keras has an argument more.
    of_tensorflow = program.of_tensorflow or program.version >= FIRST_OF_TENSORFLOW
    last = ("go_backwards", "stateful") if of_tensorflow else ("stateful",)
    names = (*_IN_PLACE[class_name], *last)
    if program.version < (2,) and len(args) > len(_IN_PLACE[class_name]):
        raise TypeError(f"{class_name}: name its last arguments, such as stateful.")
    return _by_name(class_name, names, args)


@functools.cache
def _abstract_cell() -> type:
    """Return the class from which cells of tf.keras 2 derive."""
    import keras

    class AbstractRNNCell(keras.layers.Layer):
        """A cell; that of the user has ``state_size`` and ``output_size``."""

        def get_initial_state(
            self, inputs: Any = None, batch_size: Any = None, dtype: Any = None
        ) -> Any:
            """Return zeros, in the structure of ``state_size``."""
            ops = keras.ops

            def zeros(size: Any) -> Any:
                shape = (size,) if isinstance(size, int) else tuple(size)
                if inputs is None:
                    return ops.zeros((batch_size, *shape), dtype or self.compute_dtype)
                first = ops.zeros_like(inputs[(slice(None), *(0,) * (len(inputs.shape) - 1))])
                of_samples = ops.reshape(first, (-1, *(1,) * len(shape)))
                return of_samples + ops.zeros(shape, inputs.dtype)

            if isinstance(self.state_size, list | tuple):
                return [zeros(size) for size in self.state_size]
            return zeros(self.state_size)

    return AbstractRNNCell
