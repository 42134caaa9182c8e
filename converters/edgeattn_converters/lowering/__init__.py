"""Lowerings: Keras layers rewritten as graphs that edge runtimes execute fast and correctly."""
