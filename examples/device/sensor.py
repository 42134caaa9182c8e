"""Run a bundle on samples from standard input, one JSON array per line.

The outputs are printed as one JSON object per line. Usage: ``sensor.py BUNDLE``. Replace
``readings`` with code that reads your sensor.
"""

import json
import sys
from collections.abc import Iterator

import edgeattn


def readings() -> Iterator[list]:
    """Yield samples in the shape of the model's input."""
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    model = edgeattn.load(sys.argv[1])
    for reading in readings():
        try:
            # The next call overwrites the arrays.
            outputs = {name: value.tolist() for name, value in model(reading).items()}
        except edgeattn.SampleError as error:
            outputs = {"error": str(error)}  # one bad reading does not end the program
        print(json.dumps(outputs), flush=True)


if __name__ == "__main__":
    main()
