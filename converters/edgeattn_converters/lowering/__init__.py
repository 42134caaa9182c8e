"""Layers rewritten as graphs that edge runtimes run fast and correctly."""
