"""``python -m edgeattn``, the command line if its script is not on the path."""

from edgeattn.cli.main import main

main()
