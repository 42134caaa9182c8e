"""The first operator of an artifact that computes something else than the reference."""
