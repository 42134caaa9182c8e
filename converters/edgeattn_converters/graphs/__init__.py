"""Model files as objects: reading, editing and writing."""
