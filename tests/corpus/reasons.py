"""Why files of the corpus are refused or inexact, each looked at by a person."""

from collections.abc import Mapping

# By reason: what the message contains, and why it holds.
REFUSALS: Mapping[str, tuple[str, str]] = {
    "only moves or selects values": (
        r"only looks up, moves or selects values",
        "Nothing is computed, so that integers would only round the inputs (TensorFlow's quantizer "
        "does so in int8); after a product, these operators keep its integers. For an embedding "
        "alone, use `dynamic_int8`.",
    ),
    "recurrent layers": (
        r"steps of recurrent layers stay float32",
        "onnxruntime has no kernel of `LSTM`, `GRU` or `RNN` with calibrated ranges, and the steps "
        "of a `Loop`, or in int16x8 of a `WHILE`, stay float32. `dynamic_int8` has int8 weights.",
    ),
    "quotients": (
        r"Quotients and the values that they are computed from",
        "In integers, a denominator could be rounded to zero. A mean of masked values is one.",
    ),
    "spectra": (
        r"Spectra, and what leads from them to a logarithm",
        "The logarithm amplifies the rounding of small values.",
    ),
    "attention": (
        r"In float32: softmax, scores and context",
        "In int8, an error exceeds its limit, and in float32 nothing that computes in int8 is "
        "left. The message states the ratio; `--attention-precision int8` makes the file anyway.",
    ),
    "no integer kernel (ONNX)": (
        r"stay float32: .*\b(ConvTranspose|Tanh|LayerNormalization|ReduceMean|Elu|Erf)\b",
        "onnxruntime computes `ConvTranspose`, `Tanh`, `LayerNormalization` and `ReduceMean` in "
        "float32, also between conversions.",
    ),
    "pooling, resizing, softmax (ONNX)": (
        r"stay float32: .*\b(AveragePool|Resize|Softmax|LeakyRelu)\b",
        "Integers would save neither weights nor time: pooling is converted only beside a "
        "convolution or Dense layer, `Resize` never. A softmax in int8 would round attention "
        "weights below 1/512 to zero. In int16, onnxruntime has no kernels.",
    ),
    "no integer kernel (TFLite)": (
        r"stay float32: .*\b(ELU|PRELU|RESIZE_BILINEAR)\b",
        "LiteRT has no int16 kernel of `PRELU`, and that of `RESIZE_BILINEAR` rounds positions; "
        "TensorFlow's quantizer leaves `ELU` in float32.",
    ),
    "sizes that depend on values": (
        r"depends on the input's values",
        "An output of every length cannot be compared with Keras, sample by sample.",
    ),
    "code outside the file": (
        r"the file does not contain its tensors",
        "Keras 2 saved a function without the tensors that it was called with.",
    ),
}
_FEW_STEPS = "Most values of the output are far below the largest one, which takes the 255 steps"
INEXACT_MODELS: Mapping[str, str] = {
    "tensorflow/x + y, 1 - x, x ** 2, -x": f"{_FEW_STEPS}: a cubic polynomial.",
    "layers/Bidirectional mul": f"{_FEW_STEPS}: a product of two values.",
    "layers/Dense exponential": f"{_FEW_STEPS}: an exponential.",
    "tensorflow/cast": "A value near the threshold falls on its other side.",
    "reported/text transformer": "The class of 1 of 13 rows changes, which too few samples decide.",
    "reported/temporal convolutions": "int8 weights alone, with float32 activations, have 33 dB of "
    "the required 40.",
    "published/retention": "The norm of a head divides by deviations near zero, which enlarges "
    "rounding: 18 dB in the quarter of the samples with the smallest ones, 40 to 47 in the others.",
    "published/tabular transformer": "int8 weights alone, with float32 activations, have 37 dB of "
    "the required 40.",
}
