"""Model files as objects: reading, writing and packing."""
