"""edgeattn: Keras attention models on edge devices, and proof that they still look where they looked."""

__version__ = "0.1.0.dev0"
