"""Inference with a bundle: one sample per call, a file of samples, or a stream."""
