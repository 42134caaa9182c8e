"""The reference of a bundle: inputs, with the outputs and attention maps of Keras."""
