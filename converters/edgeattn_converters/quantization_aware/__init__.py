"""Fine-tuning of a Keras model in the int8 arithmetic of the files that it is converted to.

The last resort for a model whose attention maps or outputs exceed the limits of a scheme: training
continues with rounded weights and activations, so that the weights adapt to the rounding.
"""

from edgeattn_converters.quantization_aware.fine_tuning import FineTuned, fine_tune
from edgeattn_converters.quantization_aware.options import FineTuningOptions

__all__ = ["FineTuned", "FineTuningOptions", "fine_tune"]
