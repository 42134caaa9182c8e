"""Operators of a model that hardware lacks, according to published lists; tested on no hardware."""

from collections.abc import Iterable

from edgeattn.runners.micro_operators import resolver_method
from edgeattn.schemes import MICRO

EDGE_TPU = "Edge TPU"
# Hardware without a published list, by the reason.
NOT_COMPARED = {
    "Hailo": "the operators of its compiler are listed in a user guide for registered users only"
}
# "Supported operations" at https://coral.ai/docs/edgetpu/models-intro/, without the limitations of
# single operators. All tensors must be int8.
_EDGE_TPU_OPERATORS = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED
L2_NORMALIZATION LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX
REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE
SOFTMAX SPACE_TO_DEPTH SPLIT SQUEEZE STRIDED_SLICE SUB SUM SQUARED_DIFFERENCE TANH TRANSPOSE
TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM
"""


def missing_operators(operators: Iterable[str]) -> dict[str, list[str]]:
    """By hardware, the operators of a TFLite file that it lacks."""
    kinds = sorted(set(operators))
    return {
        MICRO: [kind for kind in kinds if resolver_method(kind) is None],
        EDGE_TPU: [kind for kind in kinds if kind not in _EDGE_TPU_OPERATORS.split()],
    }
