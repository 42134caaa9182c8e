"""``python -m edgeattn``, for where scripts are not on the path."""

from edgeattn.cli.main import main

main()
