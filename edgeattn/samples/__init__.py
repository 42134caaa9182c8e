"""Samples in files: arrays, labels, states and fingerprints."""
