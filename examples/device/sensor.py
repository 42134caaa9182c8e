"""A loop that lasts: a sample a line on stdin, the answer a line on stdout.

sensor.py BUNDLE. What reads your sensor takes the place of ``readings``.
"""

import json
import sys
from collections.abc import Iterator

import edgeattn


def readings() -> Iterator[list]:
    """One sample after the other, in the shape of the model's input."""
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    model = edgeattn.load(sys.argv[1])
    for reading in readings():
        # The arrays are the model's own and are overwritten by the next call.
        answer = {name: value.tolist() for name, value in model(reading).items()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
