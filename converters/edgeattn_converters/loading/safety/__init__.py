"""Checks that a model file must pass before anything loads it."""
