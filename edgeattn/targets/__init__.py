"""Where artifacts run: another interpreter, an emulated root, or a host that ssh reaches."""
