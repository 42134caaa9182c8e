"""The Keras layer, maps of trained models, and a training callback. Requires Keras.

Importing this package registers the layer, so that saved models load without ``custom_objects``.
"""

from edgeattn.layers.attention import Attention
from edgeattn.layers.attention_maps import attention_maps
from edgeattn.layers.attention_over_epochs import AttentionOverEpochs

__all__ = ["Attention", "AttentionOverEpochs", "attention_maps"]
