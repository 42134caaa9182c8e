"""Schemes in both formats: a float model and a recipe in, a file and what became of it out.

Each format has one entry, :func:`edgeattn_converters.quantization.tflite.quantize` and
:func:`edgeattn_converters.quantization.onnx.quantize`; the other files are an idea each.
"""
