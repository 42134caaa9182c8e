"""Functions of the backend of Keras 1 and 2, which ``keras.backend`` of Keras 3 lacks.

``tf.keras.backend`` of Keras 3 has most of them.
"""

import importlib
from collections.abc import Callable
from typing import Any

from edgeattn_converters.loading.eras import batch_products, masked_steps
from edgeattn_converters.loading.legacy import legacy_image_functions, tensorflow_1
from edgeattn_converters.loading.migrate.keras1 import DATA_FORMATS

# Functions of Keras 2 that only compute, and that neither Keras 3 nor its copy in TensorFlow has.
_OF_KERAS_2 = (
    # A class, whose objects keep the dropout masks of recurrent cells, which are not used.
    "ContextValueCache",
    *("conv3d_transpose", "dtype_numpy", "is_placeholder", "local_conv", "local_conv1d"),
    *("local_conv2d", "normalize_batch_in_training", "random_binomial", "separable_conv1d"),
)
# Those to which functions and classes are added.
_OF_TENSORFLOW = (
    *("backend", "constraints", "initializers", "layers", "regularizers", "saving", "utils"),
)


def provide() -> None:
    """Add what Keras 3 lacks to ``keras.backend``."""
    import keras
    import tensorflow as tf

    for name in _OF_TENSORFLOW:
        # Otherwise a program's import replaces this attribute of tf.keras by another module.
        importlib.import_module(f"tensorflow.keras.{name}")
    functions = {**vars(tf.keras.backend), **_other_functions()}
    backends = (keras.backend, tf.keras.backend, tf.compat.v1.keras.backend)
    for name, function in functions.items():
        if (callable(function) or name == "tf") and not name.startswith("_"):
            for module in backends:
                if not hasattr(module, name):
                    setattr(module, name, function)
    replaced = {
        **legacy_image_functions.functions(functions),
        # Programs choose CuDNN layers if there are some; both kinds compute the same.
        "_get_available_gpus": list,
        "batch_dot": batch_products.of_loaded_model(functions["batch_dot"]),
        "rnn": masked_steps.of_loaded_model(functions["rnn"]),
    }
    for name, function in replaced.items():
        for module in backends:
            setattr(module, name, function)


def _other_functions() -> dict[str, Any]:
    """The functions of Keras 2 that ``tf.keras`` of Keras 3 lacks, as they compute at inference."""
    import keras
    import tensorflow as tf

    def value(x: Any) -> Any:
        return x() if callable(x) else x

    return {
        "learning_phase": lambda: 0,
        "in_train_phase": lambda x, alt, training=None: value(x if training is True else alt),
        "in_test_phase": lambda x, alt, training=None: value(alt if training is True else x),
        "identity": lambda x, name=None: tf.identity(x, name=name),
        "print_tensor": lambda x, message="", summarize=3: x,
        "slice": lambda x, start, size: tf.slice(x, start, size),
        **{name: _of_keras_2(name) for name in _OF_KERAS_2},
        **tensorflow_1.of_backend(),
        "set_image_dim_ordering": lambda order: keras.config.set_image_data_format(
            DATA_FORMATS[order]
        ),
        "image_dim_ordering": lambda: {value: key for key, value in DATA_FORMATS.items()}[
            keras.config.image_data_format()
        ],
        "softmax_3d": lambda x: tf.nn.softmax(x, axis=-1),
        "logsumexp": lambda x, axis=None, keepdims=False: tf.reduce_logsumexp(
            x, axis=axis, keepdims=keepdims
        ),
    }


def _of_keras_2(name: str) -> Callable[..., Any]:
    """The function of tf_keras, which is imported when it is called."""

    def function(*arguments: Any, **named: Any) -> Any:
        from tf_keras.src import backend

        return getattr(backend, name)(*arguments, **named)

    return function
