"""The command line: one module per command; ``main`` maps errors to messages and exit codes."""
