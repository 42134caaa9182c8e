"""The public functions: what the commands do, with objects as arguments and results."""
