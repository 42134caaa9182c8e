"""``python -m edgeattn.child`` starts a worker process. ssh commands use this name."""

from edgeattn.process.server import main

if __name__ == "__main__":
    main()
