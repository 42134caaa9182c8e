"""Answer to sound from a microphone.

    arecord -q -t raw -f S16_LE -r 8000 -c 1 | python microphone.py BUNDLE

The sound is 16-bit little-endian PCM with one channel, at the rate of the model.
"""

import json
import sys
from collections.abc import Iterator

import numpy as np

import edgeattn

# A word is in two windows that overlap by half; a lower score is noise, or the half of a word.
SMALLEST_SCORE = 0.9


def blocks() -> Iterator[np.ndarray]:
    """Yield values between -1 and 1 as they arrive."""
    rest = b""
    while data := sys.stdin.buffer.read1(4096):
        data = rest + data
        whole = len(data) // 2 * 2
        rest = data[whole:]
        yield np.frombuffer(data[:whole], "<i2").astype("float32") / 32768


def main() -> None:
    model = edgeattn.load(sys.argv[1])
    for answer in model.answers(blocks()):
        if isinstance(answer, edgeattn.EdgeattnError):
            print(f"no answer: {answer}", file=sys.stderr)
        elif answer["score"] >= SMALLEST_SCORE:
            print(json.dumps({"label": answer["label"], "score": answer["score"]}), flush=True)


if __name__ == "__main__":
    main()
