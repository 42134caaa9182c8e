"""Configurations of older Keras versions, rewritten as the current Keras writes them."""
