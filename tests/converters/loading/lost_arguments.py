"""Arguments of layers of Keras 2 that those of the loaded model do not have."""

from __future__ import annotations

from collections.abc import Sequence

# Arguments that the config of the loaded layer does not have, by class in Keras 2.
OF_RANDOM_LAYERS = {"rng_type"}
OF_WEIGHTS = {f"{part}_{kind}" for part in ("kernel", "bias")
              for kind in ("constraint", "initializer", "regularizer")}  # fmt: skip
OF_SEPARABLE_KERNELS = {"kernel_constraint", "kernel_initializer", "kernel_regularizer"}


def each(names: Sequence[str], keys: set[str]) -> dict[str, set[str]]:
    return dict.fromkeys(names, keys)


LOST = {
    "CategoryEncoding": {"sparse"},
    **each(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), {"groups"}),
    **each(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), {"time_major"}),
    "Dense": {"activity_regularizer"},
    **each(("DepthwiseConv1D", "DepthwiseConv2D"), {"groups"}),
    "Discretization": {"trainable"},
    "Embedding": {"batch_input_shape", "input_length"},
    **each(("GRU", "LSTM"), {"implementation", "time_major"}),
    "InputLayer": {"batch_input_shape"},
    "LeakyReLU": {"alpha"},  # negative_slope
    **each(("LocallyConnected1D", "LocallyConnected2D"), {"activity_regularizer"} | OF_WEIGHTS),
    "MultiHeadAttention": {"key_shape", "query_shape", "value_shape", "softmax_robust_masking"},
    **each(("RNN", "SimpleRNN"), {"time_major"}),
    **each(("RandomBrightness", "RandomContrast", "RandomFlip"), OF_RANDOM_LAYERS),
    **each(("RandomRotation", "RandomTranslation", "RandomZoom"), OF_RANDOM_LAYERS),
    "RandomCrop": OF_RANDOM_LAYERS | {"seed"},  # Resizing
    **each(
        ("RandomHeight", "RandomWidth"),
        OF_RANDOM_LAYERS | {"factor", "interpolation", "seed"},
    ),
    "Rescaling": {"offset", "scale"},  # an expression
    **each(("SeparableConv1D", "SeparableConv2D"), {"groups"} | OF_SEPARABLE_KERNELS),
    **each(
        ("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"), {"noise_shape", "trainable"}
    ),
    "TFOpLambda": {"function"},
}
