"""Configurations and weights of older Keras versions, rewritten for the current Keras."""
