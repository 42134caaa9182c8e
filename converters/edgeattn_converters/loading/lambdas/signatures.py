"""Functions of the Keras backend, TensorFlow and ``keras.ops`` that only compute on tensors.

Each line names an operation, the function that calls it and the arguments with their defaults. To
support another function add a line here and, for a new operation, one in ``keras_operations``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REQUIRED = object()


@dataclass(frozen=True)
class Signature:
    """The operation of a function, and its arguments in order with their defaults."""

    operation: str
    arguments: Mapping[str, Any]


_ELEMENTWISE = (
    "sigmoid tanh exp log log1p sqrt rsqrt square abs sign round floor ceil sin cos elu selu "
    "softplus softsign silu swish erf zeros_like ones_like identity stop_gradient negative "
    "logical_not"
)
_BINARY = (
    "add subtract multiply divide maximum minimum equal not_equal greater greater_equal less "
    "less_equal logical_and logical_or squared_difference floor_divide"
)

# The backend of Keras 1 and 2.
_BACKEND = """
mean sum max min prod std var any all logsumexp: x axis=None keepdims=False
argmax argmin expand_dims softmax: x axis=-1
squeeze: x axis
stack cumsum: x axis=0
concatenate: tensors axis=-1
reshape: x shape
transpose=permute_dimensions: x pattern
transpose relu batch_flatten flatten shape=int_shape shape hard_sigmoid_keras2=hard_sigmoid: x
power=pow: x a
clip: x min_value max_value
l2_normalize: x axis=None
cast: x dtype
cast_to_floatx: x
identity=print_tensor: x message=None summarize=None
dot: x y
batch_dot: x y axes=None
flip=reverse: x axes
repeat_vector=repeat tile: x n
repeat_elements: x rep axis
take=gather: reference indices
one_hot: indices num_classes
"""
_TENSORFLOW = """
mean=reduce_mean sum=reduce_sum max=reduce_max min=reduce_min prod=reduce_prod std=reduce_std \
var=reduce_variance any=reduce_any all=reduce_all logsumexp=reduce_logsumexp: input_tensor \
axis=None keepdims=False
first_argmax=argmax first_argmin=argmin: input axis=0
expand_dims: input axis
squeeze: input axis=None
stack: values axis=0
concat: values axis
reshape: tensor shape
transpose: a perm=None
matmul: a b transpose_a=False transpose_b=False
softmax log_softmax: logits axis=-1
relu relu6: features
leaky_relu: features alpha=0.2
gelu: features approximate=False
power=pow divide=truediv divide_of_type=div: x y
clip=clip_by_value: t clip_value_min clip_value_max
l2_normalize: x axis=None
cast: x dtype
flip=reverse: tensor axis
repeat: input repeats axis=None
tile: input multiples
gather: params indices validate_indices=None axis=0
where: condition x y
one_hot: indices depth
cumsum: x axis=0
unstack: value num=None axis=0
split: value num_or_size_splits axis=0
slice: input_ begin size
pad: tensor paddings
shape: input
identity=check_numerics: tensor message=None
"""
_OPS = """
keras_mean=mean keras_sum=sum max min keras_prod=prod std var any all logsumexp: x axis=None \
keepdims=False
argmax argmin squeeze flip cumsum: x axis=None
expand_dims: x axis
stack: x axis=0
concatenate: xs axis=0
reshape: x newshape
transpose: x axes=None
matmul power: x1 x2
softmax log_softmax l2_normalize=normalize: x axis=-1
relu relu6 hard_sigmoid shape: x
leaky_relu: x negative_slope=0.2
gelu: x approximate=True
clip: x x_min x_max
cast: x dtype
repeat: x repeats axis=None
tile: x repeats
take: x indices axis=None
where: condition x1 x2
one_hot: x num_classes
unstack: x num=None axis=0
split: x indices_or_sections axis=0
"""
# Names of the same argument in other versions or functions.
ALIASES = {
    "keep_dims": "keepdims", "reduction_indices": "axis", "squeeze_dims": "axis", "dim": "axis",
    "axes": "axis", "concat_dim": "axis", "newshape": "shape", "values": "tensors",
}  # fmt: skip


def _parse(text: str, *, pair: tuple[str, str]) -> dict[str, Signature]:
    """Parse lines ``operation[=function] ...: argument[=default] ...``."""
    lines = [line for line in text.splitlines() if line.strip()]
    lines += [f"{_ELEMENTWISE}: x", f"{_BINARY}: {pair[0]} {pair[1]}"]
    signatures: dict[str, Signature] = {}
    for line in lines:
        names, _, arguments = line.partition(":")
        parsed: dict[str, Any] = {}
        for argument in arguments.split():
            name, equals, default = argument.partition("=")
            parsed[name] = _literal(default) if equals else REQUIRED
        for entry in names.split():
            operation, _, name = entry.partition("=")
            signatures[name or operation] = Signature(operation, parsed)
    return signatures


def _literal(text: str) -> Any:
    known = {"None": None, "False": False, "True": True}
    if text in known:
        return known[text]
    return float(text) if "." in text else int(text)


# Keras 3 adds some constants along another axis than TensorFlow.
_KERAS_ADD = Signature("keras_add", {"x1": REQUIRED, "x2": REQUIRED})
FAMILIES: Mapping[str, Mapping[str, Signature]] = {
    "backend": _parse(_BACKEND, pair=("x", "y")),
    "tensorflow": _parse(_TENSORFLOW, pair=("x", "y")),
    "ops": {**_parse(_OPS, pair=("x1", "x2")), "add": _KERAS_ADD},
}
_ROOTS = {
    "backend": "K k KB kb backend keras.backend tf.keras.backend tensorflow.keras.backend "
    "tensorflow.python.keras.backend tf.python.keras.backend keras.src.backend tfk.backend "
    "ks.backend tf_keras.backend keras_backend",
    "tensorflow": "tf tensorflow tf.math tensorflow.math tf.nn tensorflow.nn tf.linalg "
    "tf.compat.v1 tf.compat.v1.nn tf.compat.v1.math tensorflow.python.ops.math_ops math_ops "
    "tensorflow.python.ops.array_ops array_ops tensorflow.python.ops.nn_ops nn nn_ops "
    "tf.keras.activations keras.activations activations tensorflow.python.ops.gen_math_ops "
    "tensorflow.python.ops.gen_nn_ops tensorflow.python.ops.gen_array_ops tf.compat.v2 "
    "tf.debugging",
    "ops": "ops keras.ops kops keras.src.ops",
}
FAMILY_OF = {root: family for family, roots in _ROOTS.items() for root in roots.split()}


def find(path: str) -> Signature | None:
    """Return the signature of a function by its dotted name, None if it is unknown."""
    root, _, name = path.rpartition(".")
    family = FAMILY_OF.get(root)
    return FAMILIES[family].get(name) if family else None


def is_of_backend(path: str) -> bool:
    """Whether a dotted name is that of a function of the backend of Keras 1 and 2."""
    return FAMILY_OF.get(path.rpartition(".")[0]) == "backend"
