"""Answer to sentences, one per line. Usage: ``sentences.py BUNDLE``."""

import sys

import edgeattn


def main() -> None:
    model = edgeattn.load(sys.argv[1])
    for line in sys.stdin:
        if not line.strip():
            print("no answer: the line is empty", file=sys.stderr)
            continue
        try:
            answer = model.answer(line.strip())
        except edgeattn.SampleError as error:
            print(f"no answer: {error}", file=sys.stderr)
            continue
        # The words with the largest weights of the attention map.
        words = line.lower().split()
        weights = answer["attention"][: len(words)]
        decisive = sorted(zip(weights, words, strict=False), reverse=True)[:3]
        print(
            answer["label"], f"{answer['score']:.2f}", *(word for _, word in decisive), flush=True
        )


if __name__ == "__main__":
    main()
