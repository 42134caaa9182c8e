"""Names of TensorFlow 1 that programs for Keras 1 and 2 use, in TensorFlow 2.

Functions that only compute are those of ``tf.compat.v1``, also where both have a function and its
arguments are those of TensorFlow 1, such as ``keep_dims``. Sessions, graphs and optimizers concern
training, and settings of TensorFlow, such as no eager execution, are not those of a conversion:
neither have an effect.
"""

import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from edgeattn_converters.loading.lambdas import tensorflow_functions
from edgeattn_converters.loading.legacy.training_names import Unused, nothing

# Functions beside those that Lambda layers may call.
_COMPUTING = (
    *(
        "arg_max",
        "arg_min",
        "ceil",
        "div",
        "erf",
        "log",
        "log1p",
        "logical_xor",
        "random_normal",
        "random_uniform",
        "rsqrt",
    ),
    *(
        "squared_difference",
        "to_bfloat16",
        "to_double",
        "to_float",
        "to_int32",
        "to_int64",
        "truncated_normal",
    ),
    *("glorot_normal_initializer", "glorot_uniform_initializer", "orthogonal_initializer"),
    *(
        "truncated_normal_initializer",
        "uniform_unit_scaling_initializer",
        "variance_scaling_initializer",
    ),
    *("image.resize_image_with_pad", "nn.depthwise_conv2d_native"),
)
# Both have them, and TensorFlow 1 names for arguments that TensorFlow 2 does not have.
_WITH_OTHER_ARGUMENTS = (
    *(
        f"reduce_{name}"
        for name in ("all", "any", "logsumexp", "max", "mean", "min", "prod", "sum")
    ),
    *("argmax", "argmin", "expand_dims", "reverse_sequence", "squeeze", "where"),
    *(f"nn.{name}" for name in ("log_softmax", "softmax", "moments", "l2_normalize", "dropout")),
    *(f"nn.{name}" for name in ("avg_pool", "max_pool", "convolution", "conv1d", "conv2d")),
    *(f"nn.{name}" for name in ("depthwise_conv2d", "separable_conv2d", "space_to_depth")),
    *("nn.conv2d_transpose", "nn.conv3d", "nn.depth_to_space", "linalg.norm", "norm"),
    *("math.argmax", "math.argmin", "math.l2_normalize", "math.count_nonzero"),
    *(f"math.reduce_{name}" for name in ("max", "mean", "min", "prod", "sum")),
)
_SETTINGS = tuple(
    f"{verb}_{name}"
    for verb in ("disable", "enable")
    for name in (
        *("control_flow_v2", "eager_execution", "resource_variables", "tensor_equality"),
        *("v2_behavior", "v2_tensorshape"),
    )
)
# Private modules from which programs import them.
_OF_SETTINGS = ("tensorflow.python.framework.ops", "tensorflow.python.compat.v2_compat")
_OF_SESSIONS = (
    *(
        "ConfigProto",
        "GPUOptions",
        "GraphDef",
        "InteractiveSession",
        "RunMetadata",
        "RunOptions",
        "Session",
        "Summary",
    ),
    *(
        "all_variables",
        "app",
        "flags",
        "get_collection",
        "get_default_graph",
        "get_default_session",
        "gfile",
    ),
    *(
        "global_variables",
        "global_variables_initializer",
        "initialize_all_variables",
        "initialize_variables",
    ),
    *(
        "local_variables_initializer",
        "logging",
        "placeholder",
        "reset_default_graph",
        "set_random_seed",
    ),
    *("tables_initializer", "trainable_variables", "variables_initializer"),
    *(
        "train.AdadeltaOptimizer",
        "train.AdagradOptimizer",
        "train.AdamOptimizer",
        "train.GradientDescentOptimizer",
    ),
    *(
        "train.MomentumOptimizer",
        "train.RMSPropOptimizer",
        "train.Saver",
        "train.exponential_decay",
    ),
    *(
        "train.get_or_create_global_step",
        "train.write_graph",
        "summary.FileWriter",
        "summary.merge_all",
    ),
)


def provide() -> None:
    """Add the functions that only compute; classes of a program call them later, too."""
    import tensorflow as tf

    # An import of it in a program makes another module.
    importlib.import_module("tensorflow.compat.v1")
    if hasattr(tf, "to_float"):
        return
    known = tensorflow_functions.FUNCTIONS | tensorflow_functions.ALIASES
    for path in (*sorted(known), *_COMPUTING):
        place, name = _place(tf, path)
        former = _found(tf.compat.v1, path)
        if place is not None and former is not None and not hasattr(place, name):
            setattr(place, name, former)
    for path in _WITH_OTHER_ARGUMENTS:
        place, name = _place(tf, path)
        setattr(place, name, _of_either(getattr(place, name), _found(tf.compat.v1, path)))


def provide_settings(replace: Callable[[Any, str, Any], None]) -> None:
    """Add what has no effect; ``replace`` sets an attribute of a module."""
    import tensorflow as tf

    for name in _SETTINGS:
        replace(tf.compat.v1, name, nothing)
        if not hasattr(tf, name):
            replace(tf, name, nothing)
    for path in _OF_SETTINGS:
        module = importlib.import_module(path)
        for name in (*_SETTINGS, "reset_default_graph"):
            if hasattr(module, name):
                replace(module, name, nothing)
    if not hasattr(tf.random, "set_random_seed"):
        replace(tf.random, "set_random_seed", nothing)
    for name in ("run_functions_eagerly", "experimental_run_functions_eagerly"):
        replace(tf.config, name, nothing)
    for path in _OF_SESSIONS:
        place, name = _place(tf, path)
        if not hasattr(place, name):
            replace(place, name, Unused(f"tensorflow.{path}"))


def of_backend() -> dict[str, Any]:
    """Return what ``keras.backend`` of Keras 1 and 2 has of sessions and TensorFlow."""
    import tensorflow as tf

    return {
        "set_session": nothing,
        "get_session": lambda: Unused("keras.backend.get_session()"),
        "placeholder": Unused("keras.backend.placeholder"),
        "set_learning_phase": _set_learning_phase,
        "learning_phase_scope": _learning_phase_scope,
        "symbolic_learning_phase": lambda: 0,
        "global_learning_phase_is_set": lambda: False,
        "manual_variable_initialization": nothing,
        "reset_uids": nothing,
        "symbolic": lambda function: function,
        "tf": tf,
    }


def _set_learning_phase(value: Any) -> None:
    if value:
        raise ValueError(
            "layers would compute as in training, which no artifact reproduces; use "
            "set_learning_phase(0)"
        )


@contextlib.contextmanager
def _learning_phase_scope(value: Any) -> Iterator[None]:
    _set_learning_phase(value)
    yield


def _place(module: Any, path: str) -> tuple[Any, str]:
    """The module of a name, None if there is none, and the last part of the name."""
    parent, _, name = path.rpartition(".")
    return (_found(module, parent) if parent else module), name


def _found(module: Any, path: str) -> Any:
    for part in path.split("."):
        module = getattr(module, part, None)
    return module


def _of_either(present: Callable[..., Any], former: Callable[..., Any]) -> Callable[..., Any]:
    """The function of TensorFlow 2, or that of 1 if only its arguments have the given names."""
    ours, theirs = (set(inspect.signature(item).parameters) for item in (present, former))

    @functools.wraps(present)
    def function(*values: Any, **named: Any) -> Any:
        others = named.keys() - ours
        return (former if others and others <= theirs else present)(*values, **named)

    return function
