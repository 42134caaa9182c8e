"""``python -m edgeattn.child``: the worker process, by the name that ssh commands use."""

from edgeattn.process.server import main

if __name__ == "__main__":
    main()
