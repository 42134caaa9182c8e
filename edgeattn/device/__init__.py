"""The machine this runs on: its hardware, its runtimes and advice about both."""
