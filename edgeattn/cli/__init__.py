"""The command line: a file per command, options shared, errors turned into text in ``main``."""
