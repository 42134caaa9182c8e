"""Limits and allowlists that a model file must respect before anything of it is loaded."""
