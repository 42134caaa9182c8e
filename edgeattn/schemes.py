"""Names of schemes and formats. The command line imports this module, so it must stay small."""

SCHEMES = ("float32", "float16", "dynamic_int8", "int8", "int16x8")
# Converted only if requested by name, and not part of "all".
EXPERIMENTAL = ("int4",)
FORMATS = ("tflite", "onnx")
