"""Functions of the backend of Keras 2 that only compute, which code of Lambda layers may call.

They draw no random numbers, keep no state and take no Python functions. Those of
``signatures`` are here only if they have more arguments than expressions compute.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn_converters.loading.legacy import legacy_backend

_TABLE = """
arange batch_normalization bias_add binary_crossentropy binary_focal_crossentropy
categorical_crossentropy categorical_focal_crossentropy constant conv1d conv2d
conv2d_transpose conv3d conv3d_transpose ctc_decode cumprod depthwise_conv2d dtype elu epsilon eye
image_data_format in_test_phase in_top_k in_train_phase is_sparse learning_phase local_conv
local_conv1d local_conv2d ndim normalize_batch_in_training ones pool2d pool3d relu resize_images
resize_volumes separable_conv2d slice softmax_3d
sparse_categorical_crossentropy spatial_2d_padding spatial_3d_padding switch temporal_padding
to_dense zeros
"""
FUNCTIONS = frozenset(_TABLE.split())


def call(name: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """The result of the function of the backend with this name, which must be known."""
    import keras

    if name not in FUNCTIONS:
        raise ValueError(f"{name} is not a known function of the backend")
    legacy_backend.provide()
    return getattr(keras.backend, name)(*arguments, **named)
