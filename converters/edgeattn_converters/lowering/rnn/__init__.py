"""Recurrent layers as unrolled, chunked or fused graphs, or as ONNX nodes."""
