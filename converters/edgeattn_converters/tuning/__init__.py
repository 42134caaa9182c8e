"""Searches for the smallest or fastest artifact that passes."""
