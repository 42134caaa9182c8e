"""The Keras layer that users train with; importing it makes saved models reload by themselves."""

from edgeattn.layers.attention import Attention

__all__ = ["Attention"]
