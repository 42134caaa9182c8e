"""A Keras model as a frozen TensorFlow graph with attention maps and states as outputs."""
