"""Layers that normalize as in Keras 2, along several axes.

``BatchNormalization`` of Keras 3 has one axis, and ``LayerNormalization`` weights in another order
if negative axes are beside positive ones. The names are those of Keras, which are part of the paths
in a ``.weights.h5`` file.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import keras
from keras import ops

from edgeattn_converters.loading.legacy import places_of_arguments
from edgeattn_converters.loading.migrate.replaced_layers import has_own_axes


@keras.saving.register_keras_serializable(package="edgeattn")
class BatchNormalization(keras.layers.BatchNormalization):
    """Normalizes with a mean and a variance for each position along several axes, as at inference.

    Args:
        axis: the axes. The weights have the sizes of the inputs along them, and 1 along others.
    """

    def __init__(self, axis: Sequence[int], *args: Any, **kwargs: Any) -> None:
        super().__init__(-1, *args, **kwargs)
        self.axis = list(axis)

    def build(self, input_shape: Any) -> None:
        """Create gamma, beta, the mean and the variance."""
        axes = [axis % len(input_shape) for axis in self.axis]
        shape = tuple(size if axis in axes else 1 for axis, size in enumerate(input_shape))
        self.gamma = self.add_weight(shape, name="gamma") if self.scale else None
        self.beta = self.add_weight(shape, name="beta") if self.center else None
        self.moving_mean = self.add_weight(shape, name="moving_mean", trainable=False)
        self.moving_variance = self.add_weight(shape, name="moving_variance", trainable=False)

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Return ``(inputs - mean) / sqrt(variance + epsilon) * gamma + beta``."""
        return _normalized(
            inputs, self.moving_mean, self.moving_variance + self.epsilon, self.gamma, self.beta
        )


@keras.saving.register_keras_serializable(package="edgeattn")
class SyncBatchNormalization(keras.layers.BatchNormalization):
    """The layer of Keras 2 that differs from BatchNormalization in training and its name only."""


@keras.saving.register_keras_serializable(package="edgeattn")
class LayerNormalization(keras.layers.LayerNormalization):
    """Normalizes along ``axis``, in the order of which ``gamma`` and ``beta`` have their axes."""

    axis: list[int]

    def build(self, input_shape: Any) -> None:
        """Create gamma and beta."""
        axes: list[int] = [axis % len(input_shape) for axis in self.axis]
        self.axis = axes
        shape = tuple(input_shape[axis] for axis in axes)
        self.gamma = self.add_weight(shape, name="gamma") if self.scale else None
        self.beta = self.add_weight(shape, name="beta") if self.center else None

    def call(self, inputs: Any) -> Any:
        """Return the inputs with mean 0 and variance 1 along the axes, times gamma, plus beta."""
        mean = ops.mean(inputs, self.axis, keepdims=True)
        variance = ops.var(inputs, self.axis, keepdims=True)
        # As tf_keras reshapes them, also if the axes are in another order.
        shape = [n if axis in self.axis else 1 for axis, n in enumerate(inputs.shape)]
        gamma, beta = (
            None if weight is None else ops.reshape(weight, shape)
            for weight in (self.gamma, self.beta)
        )
        return _normalized(inputs, mean, variance + self.epsilon, gamma, beta)


@contextlib.contextmanager
def accepted() -> Iterator[None]:
    """Let layers of Keras be created with the axes of Keras 2, also as layers of this module."""
    of_keras = keras.layers.BatchNormalization
    with (
        mock.patch.object(of_keras, "__new__", _new(of_keras, BatchNormalization), create=True),
        mock.patch.object(
            keras.layers.LayerNormalization,
            "__new__",
            _new(keras.layers.LayerNormalization, LayerNormalization),
            create=True,
        ),
        mock.patch.object(of_keras, "__init__", _with_one_axis(of_keras.__init__)),
    ):
        yield


def _new(of_keras: Any, own: Any) -> Callable[..., Any]:
    """The ``__new__`` of a layer of Keras, which returns one of a class with its own axes."""

    def new(cls: Any, *args: Any, **kwargs: Any) -> Any:
        axis = kwargs.get("axis", args[0] if args else None)
        replaced = cls is of_keras and has_own_axes(cls.__name__, axis)
        return keras.layers.Layer.__new__(own if replaced else cls, *args, **kwargs)

    return new


def _with_one_axis(create: Callable[..., None]) -> Callable[..., None]:
    """The constructor of a BatchNormalization, whose axis may be the only one of a list."""

    def only(layer: Any, axis: Any) -> Any:
        if not isinstance(axis, list | tuple):
            return axis
        if len(axis) > 1:
            raise TypeError(
                f"{type(layer).__name__}(axis={axis!r}): in Keras 3, a class derived from "
                "BatchNormalization cannot normalize along several axes"
            )
        return axis[0]

    # Without functools.wraps: Keras reads both the signature and the names of the arguments.
    def with_axis(layer: Any, /, *args: Any, **kwargs: Any) -> None:
        named = {"axis": only(layer, kwargs["axis"])} if "axis" in kwargs else {}
        args = tuple(only(layer, value) for value in args[:1]) + args[1:]
        create(layer, *args, **{**kwargs, **named})

    setattr(with_axis, places_of_arguments.NAMES, places_of_arguments.names(create))
    return with_axis


def _normalized(inputs: Any, mean: Any, variance: Any, gamma: Any, beta: Any) -> Any:
    outputs = (inputs - mean) * ops.rsqrt(variance)
    outputs = outputs if gamma is None else outputs * gamma
    return outputs if beta is None else outputs + beta
