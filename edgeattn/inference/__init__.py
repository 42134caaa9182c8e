"""Artifacts as models: one sample at a time, a file of samples, or a stream."""
