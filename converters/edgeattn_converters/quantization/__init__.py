"""Quantization of float models to the schemes, in both formats.

The entry points are :func:`edgeattn_converters.quantization.tflite.quantize` and
:func:`edgeattn_converters.quantization.onnx.quantize`.
"""
