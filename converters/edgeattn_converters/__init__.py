"""The host's half of edgeattn: from a trained Keras model to a bundle."""
