"""The names of schemes and formats, apart from all else: the command line needs them at once."""

from __future__ import annotations

SCHEMES = ("float32", "float16", "dynamic_int8", "int8", "int16x8")
# Made where they are asked for by name, and left out of "all".
EXPERIMENTAL = ("int4",)
FORMATS = ("tflite", "onnx")
