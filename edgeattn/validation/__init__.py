"""The verdict: checks of an artifact against the outputs and attention maps of Keras."""
