"""Arguments in place of constructors of Keras 2, by name.

Keras 3 has some of them in other places: ``LSTM`` has ``seed`` where Keras 2 has
``return_sequences``. Versions of Keras 2 differ, too, and some accept fewer.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeattn.errors import UsageError
from edgeattn.printable import enumerated
from edgeattn_converters.loading.legacy.legacy_program import Program
from edgeattn_converters.loading.own_code.classes_of_keras_2 import FIRST_OF_TENSORFLOW

Version = tuple[int, ...]

# Groups of names in the table.
_GROUPS = {
    "CONVOLUTION": "activation use_bias kernel_initializer bias_initializer kernel_regularizer "
    "bias_regularizer activity_regularizer kernel_constraint bias_constraint",
    "DEPTHWISE": "activation use_bias depthwise_initializer bias_initializer "
    "depthwise_regularizer bias_regularizer activity_regularizer depthwise_constraint "
    "bias_constraint",
    "SEPARABLE": "depth_multiplier activation use_bias depthwise_initializer "
    "pointwise_initializer bias_initializer depthwise_regularizer pointwise_regularizer "
    "bias_regularizer activity_regularizer depthwise_constraint pointwise_constraint "
    "bias_constraint",
    "RECURRENT": "return_sequences return_state go_backwards stateful",
}
# Each line has classes, the number of places that are the same in Keras 3, the versions (from the
# first one to before the second one; those of tf.keras or of keras only) and the names that
# follow. In other versions the order is that of Keras 3. TensorFlow 2.3 and 2.4 both have Keras
# 2.4.0, TensorFlow 1.13 to 2.1 have 2.2.4-tf.
_TABLE = """
BatchNormalization 16 2-2.5 tf: fused trainable virtual_batch_size adjustment name
BatchNormalization 13 2.12-3: synchronized
CenterCrop RandomFlip 2 2.3-2.5: name
Conv1D 4 2-2.2 keras: dilation_rate CONVOLUTION
Conv1D 4 2-2.1.6 tf: dilation_rate CONVOLUTION
Conv1D 6 2.2-2.4: CONVOLUTION
Conv1D 6 2.1.6-2.2 tf: CONVOLUTION
Conv2D Conv3D 6 2-2.4: CONVOLUTION
Conv2DTranspose 4 2-2.2.1: data_format CONVOLUTION
Conv2DTranspose 6 2.2.1-2.2.3 keras: CONVOLUTION
Conv3DTranspose 5 2-2.2.1: CONVOLUTION
Conv3DTranspose 4 2.2.1-2.4: output_padding data_format CONVOLUTION
Conv3DTranspose 4 2.4-3: output_padding data_format dilation_rate CONVOLUTION
ConvLSTM2D 20 2-2.4: return_sequences go_backwards stateful dropout recurrent_dropout
ConvLSTM1D ConvLSTM2D ConvLSTM3D 20 2.4-3: RECURRENT dropout recurrent_dropout
DepthwiseConv2D 5 2-2.2.5 keras: DEPTHWISE
DepthwiseConv2D 5 2-2.4 tf: DEPTHWISE
Discretization 1 2.3-2.4 tf: output_mode
EinsumDense 8 2.4-3: activity_regularizer kernel_constraint bias_constraint
Embedding 4 2-3: activity_regularizer embeddings_constraint mask_zero input_length sparse
GRU 16 2.0.9-2.3: implementation RECURRENT unroll reset_after
GRU 16 2.3-2.4 keras: implementation RECURRENT unroll reset_after
GRU 16 2.2.4-2.5 tf: implementation RECURRENT unroll time_major reset_after
GRU 16 2.4-3: RECURRENT unroll time_major reset_after
GRUCell 15 2.0.9-2.5: implementation reset_after
GRUCell 15 2.4-3: reset_after
Hashing 1 2.3-2.5: salt name
Identity Layer 0 2-3: trainable name dtype dynamic
Input 1 2-2.4 keras: batch_shape name dtype sparse tensor
Input 2 2-3 tf: name dtype sparse tensor ragged type_spec optional
InputLayer 2 2-2.4 keras: batch_shape dtype input_tensor sparse name
InputLayer 3 2-3 tf: input_tensor sparse name ragged type_spec optional
IntegerLookup 5 2.4-2.7: invert output_mode sparse pad_to_max_tokens
IntegerLookup 5 2.7-2.8: idf_weights invert output_mode sparse pad_to_max_tokens
Lambda 1 2-2.1 tf: mask arguments
LayerNormalization 10 2.2.4-2.5: trainable name
LSTM 17 2.0.9-2.3: implementation RECURRENT unroll
LSTM 17 2.3-2.4 keras: implementation RECURRENT unroll
LSTM 17 2.2.4-2.5 tf: implementation RECURRENT time_major unroll
LSTM 17 2.4-3: RECURRENT time_major unroll
LSTMCell 16 2.0.9-2.5: implementation
MultiHeadAttention 7 2.4-3: kernel_initializer bias_initializer kernel_regularizer \
bias_regularizer activity_regularizer kernel_constraint bias_constraint softmax_robust_masking
Normalization 1 2.2.4-2.5: dtype mean variance
RandomContrast 1 2.3-3: seed name
RandomCrop Resizing 3 2.3-2.5: name
RandomRotation 4 2.3-2.5: name fill_value
RandomTranslation RandomZoom 5 2.3-2.5: name fill_value
Rescaling 1 2.3-2.4: name
Rescaling 2 2.4-2.5: name
RNN 6 2.2.4-3 tf: time_major
SeparableConv1D SeparableConv2D 5 2-2.1.6 keras: SEPARABLE
SeparableConv2D 5 2-2.1 tf: SEPARABLE
Sequential 1 2-3: name
Softmax 1 2.16-3: robust_masking
StringLookup 5 2.4-2.7: encoding invert output_mode sparse pad_to_max_tokens
StringLookup 6 2.7-3: encoding invert output_mode sparse pad_to_max_tokens
"""
# The attribute of a function in place of a constructor, with the names of its arguments.
NAMES = "_edgeattn_names"
# Arguments that leave the values of the layer unchanged, whatever they are.
_WITHOUT_EFFECT = frozenset({"implementation", "seed", "fused", "unroll"})
# That of tf_keras 2.16 or later, for which Keras 3 does not tell its files apart.
_LATEST = Program((2, 16), of_tensorflow=True)


@dataclass(frozen=True)
class _Order:
    """The names from place ``start`` on, in versions ``since <= version < before``.

    ``of_tensorflow`` is whether they are those of tf.keras, None if of any Keras.
    """

    start: int
    since: Version
    before: Version
    of_tensorflow: bool | None
    names: tuple[str, ...]


def _parse() -> dict[str, list[_Order]]:
    orders: dict[str, list[_Order]] = {}
    for line in _TABLE.replace("\\\n", "").strip().splitlines():
        head, _, words = line.partition(":")
        classes, (start, versions, *kind) = _split(head.split())
        since, before = (tuple(map(int, item.split("."))) for item in versions.split("-"))
        names = " ".join(_GROUPS.get(word, word) for word in words.split()).split()
        of_tensorflow = kind[0] == "tf" if kind else None
        for name in classes:
            order = _Order(int(start), since, before, of_tensorflow, tuple(names))
            orders.setdefault(name, []).append(order)
    return orders


def _split(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Split the head of a line of the table after the classes."""
    first = next(place for place, word in enumerate(words) if word.isdigit())
    return words[:first], words[first:]


_ORDERS = _parse()
CLASSES = frozenset(_ORDERS)


def names(create: Callable[..., Any], first: int = 1) -> dict[str, Any]:
    """Return the names of the arguments in place of a function, after ``first``, with defaults."""
    if hasattr(create, NAMES):
        return dict(getattr(create, NAMES))
    parameters = list(inspect.signature(create).parameters.values())[first:]
    in_place = (item for item in parameters if item.kind is item.POSITIONAL_OR_KEYWORD)
    return {item.name: item.default for item in in_place}


def by_name(
    class_name: str,
    current: Mapping[str, Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    program: Program,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a constructor, by name from the first that Keras 3 has in another place.

    Args:
        class_name: the name of the class in Keras.
        current: the names of its arguments in place in Keras 3, with their defaults.
        args: arguments in place.
        kwargs: arguments by name.
        program: the program that calls it, and its version of Keras.

    Raises:
        UsageError: versions that the program may be written for differ in what they are.
    """
    found = _readings(class_name, current, args, program)
    if not found:
        return tuple(args), dict(kwargs)
    if any(_with_effect(item, current) != _with_effect(found[0], current) for item in found[1:]):
        raise _ambiguous(class_name, args, found, program)
    start = min(order.start for order in _ORDERS[class_name])
    named = dict(list(found[0].items())[start:])
    if named.keys() & kwargs.keys():
        return tuple(args), dict(kwargs)  # which Keras reports
    return tuple(args[:start]), {**_accepted(named, current), **kwargs}


def difference(
    class_name: str, current: Mapping[str, Any], args: Sequence[Any], program: Program
) -> str | None:
    """Return the clause of a note on a place that is another argument in Keras 2, if there is one.

    Only for a program that runs in Keras 3 and may be one for tf_keras.
    """
    if not program.may_be_older:
        return None
    former = _readings(class_name, current, args, _LATEST)
    today = dict(zip(current, args, strict=False))
    if not former or _with_effect(former[0], current) == _with_effect(today, current):
        return None
    place, one, other = next(
        (place, *names)
        for place, names in enumerate(zip(today, former[0], strict=False))
        if names[0] != names[1]
    )
    return f"its argument {place + 1} in place is {one} in Keras 3, and {other} in Keras 2"


def _readings(
    class_name: str, current: Mapping[str, Any], args: Sequence[Any], program: Program
) -> list[dict[str, Any]]:
    """The arguments in place by name, in each order that may be that of the program.

    Empty if all of them have the places of Keras 3, or if Keras 2 does not accept as many.
    """
    orders = _ORDERS.get(class_name, [])
    if program.version >= (3,) or not any(len(args) > order.start for order in orders):
        return []
    if program.version < (2,):  # unknown, or a program for another Keras than that of the weights
        orders = [*orders, _Order(0, (3,), (4,), None, tuple(current))]
    else:
        orders = [order for order in orders if _applies(order, program)]
    return [item for order in orders if (item := _reading(order, current, args))]


def _applies(order: _Order, program: Program) -> bool:
    # Keras of its own ended with tf.keras 2.4.
    of_tensorflow = program.of_tensorflow or program.version >= FIRST_OF_TENSORFLOW
    of_kind = order.of_tensorflow in (None, of_tensorflow)
    return of_kind and order.since <= program.version < order.before


def _reading(
    order: _Order, current: Mapping[str, Any], args: Sequence[Any]
) -> dict[str, Any] | None:
    names = (*list(current)[: order.start], *order.names)
    return dict(zip(names, args, strict=False)) if len(args) <= len(names) else None


def _with_effect(reading: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that change a layer."""
    return {
        name: value
        for name, value in reading.items()
        if name not in _WITHOUT_EFFECT and value is not current.get(name, False)
    }


def _accepted(named: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments without those that Keras 3 lacks and that are None or False; it rejects others."""
    return {
        name: value
        for name, value in named.items()
        if name in current
        or name in ("name", "trainable", "dtype", "activity_regularizer", "input_length")
        or not (name in _WITHOUT_EFFECT or value is None or value is False)
    }


def _ambiguous(
    class_name: str,
    args: Sequence[Any],
    readings: Sequence[Mapping[str, Any]],
    program: Program,
) -> UsageError:
    names = [tuple(reading) for reading in readings]
    place = next(k for k in range(len(args)) if len({item[k : k + 1] for item in names}) > 1)
    found = list(dict.fromkeys(item[place] for item in names if len(item) > place))
    version = ".".join(map(str, program.version))
    reason = f"Keras {version} has several orders" if version else "their version is unknown"
    return UsageError(
        f"{class_name}: argument {place + 1} in place is {enumerated(found, 'or')} in the Keras "
        f"that saved the weights: {reason}.",
        hint=f"Name it in the program: {class_name}(..., {found[0]}=VALUE)",
    )
