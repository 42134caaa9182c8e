"""Samples and labels from files."""
