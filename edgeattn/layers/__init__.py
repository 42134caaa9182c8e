"""The Keras layer that users train with; importing it makes saved models reload by themselves."""

from edgeattn.layers.attention import Attention
from edgeattn.layers.attention_maps import AttentionOverEpochs, attention_maps

__all__ = ["Attention", "AttentionOverEpochs", "attention_maps"]
