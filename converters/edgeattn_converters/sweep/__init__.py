"""Sweeps: many models, schemes, formats, lowerings, targets and datasets in one table."""
