"""The stages of a verdict that look at one artifact: each gives checks, and runs nothing."""
