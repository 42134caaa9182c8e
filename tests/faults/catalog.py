"""All faults."""

from .batch_faults import BATCH_FAULTS
from .graph_faults import GRAPH_FAULTS
from .onnx_faults import ONNX_FAULTS
from .runner_faults import RUNNER_FAULTS
from .structure_faults import STRUCTURE_FAULTS
from .tflite_faults import TFLITE_FAULTS

FAULTS = [
    *ONNX_FAULTS,
    *GRAPH_FAULTS,
    *TFLITE_FAULTS,
    *STRUCTURE_FAULTS,
    *RUNNER_FAULTS,
    *BATCH_FAULTS,
]
