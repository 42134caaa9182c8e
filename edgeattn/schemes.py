"""Names of schemes and formats, and a default of the command line, which imports this module.

It must stay small.
"""

SCHEMES = ("float32", "float16", "dynamic_int8", "int8", "int16x8")
EXPERIMENTAL = ("int4",)
# Converted only if requested by name, and not part of "all". The runtimes of a Pi have no fast
# kernels for the int16 operators of int16x8.
ON_REQUEST = ("int16x8", *EXPERIMENTAL)
FORMATS = ("tflite", "onnx")
# The runtime of microcontrollers, which needs files of its own.
MICRO = "tflite-micro"
# The default of --max-drop: the largest accepted drop of a score, or share of changed answers.
MAX_DROP = 0.02
