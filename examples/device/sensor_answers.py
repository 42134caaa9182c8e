"""Answer to the readings of a sensor. Usage: ``sensor_answers.py BUNDLE``.

Readings come from standard input, one line of numbers each. Replace ``readings`` with code that
reads your sensor at a fixed rate. A reading that was missed is a row of NaN: the window around it
is left out, or filled if the front end has ``missing = "previous"``.
"""

import json
import math
import sys
from collections.abc import Iterator

import edgeattn

COLUMNS = 9


def readings() -> Iterator[list[float]]:
    """Yield a reading at a time, with ``COLUMNS`` values."""
    for line in sys.stdin:
        try:
            yield [float(field) for field in line.split(",")]
        except ValueError:
            yield [math.nan] * COLUMNS


def main() -> None:
    model = edgeattn.load(sys.argv[1])
    # Windows are made of the readings; at most one of them is in memory.
    for answer in model.answers(readings()):
        if isinstance(answer, edgeattn.EdgeattnError):
            print(f"no answer: {answer}", file=sys.stderr)  # the stream continues
        else:
            print(json.dumps({"label": answer["label"], "score": answer["score"]}), flush=True)


if __name__ == "__main__":
    main()
