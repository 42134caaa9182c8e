"""What programs and classes for Keras 1 and 2 import and call, with Keras 3."""
