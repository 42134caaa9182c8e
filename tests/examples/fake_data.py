"""Random data in the formats of the real files, with few rows."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np

WORDS = [f"word{number}" for number in range(60)]


def write_reviews(folder: Path, count: int = 40) -> None:
    """``train.jsonl.gz`` and ``test.jsonl.gz``: good reviews contain the word "good"."""
    rng = np.random.default_rng(3)
    for part in ("train", "test"):
        with gzip.open(folder / f"{part}.jsonl.gz", "wt", encoding="utf-8") as file:
            for number in range(count):
                label = number % 2
                words = list(rng.choice(WORDS, rng.integers(5, 60)))
                words[:: 3 + label] = ["good" if label else "bad"] * len(words[:: 3 + label])
                row = {"id": number, "label": label, "text": " ".join(words) + ". <br />It's over!"}
                file.write(json.dumps(row) + "\n")


def write_archive(path: Path, reviews: dict[str, str]) -> None:
    """A ``.tar.gz`` of ``name: text``."""
    with tarfile.open(path, "w:gz") as archive:
        for name, text in reviews.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


def write_har_subset(path: Path, count: int = 48) -> None:
    """Windows in an ``.npz``."""
    rng = np.random.default_rng(4)
    y = np.arange(count) % 6 + 1
    x, x_test = rng.normal(0, 0.1, (2, count, 128, 9)).astype("float32") + y[:, None, None]
    np.savez(path, x_train=x, y_train=y, x_test=x_test, y_test=y)


def write_har_archive(path: Path, signals: dict[str, np.ndarray], labels: np.ndarray) -> None:
    """The archive of the UCI repository: a zip file in a zip file, a text file per signal."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        for part in ("train", "test"):
            for name, values in signals.items():
                text = "\n".join("  ".join(f"{v:.7e}" for v in row) for row in values)
                folder = f"UCI HAR Dataset/{part}/Inertial Signals"
                archive.writestr(f"{folder}/{name}_{part}.txt", text)
                archive.writestr(f"__MACOSX/{folder}/._{name}_{part}.txt", b"\0\1")
            text = "\n".join(map(str, labels))
            archive.writestr(f"UCI HAR Dataset/{part}/y_{part}.txt", text)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("UCI HAR Dataset.zip", inner.getvalue())
        archive.writestr("UCI HAR Dataset.names", "about")


def write_gestures(path: Path, frames: int = 120) -> None:
    """A recording for each movement; a row has the last 16 positions."""
    rows = []
    for label in range(4):
        steps = np.arange(frames + 16)
        angle = steps * (0, 0.3, -0.3, 0.05)[label]
        positions = np.stack([np.cos(angle) + label, np.sin(angle) + steps / 1000], axis=1)
        rows += [[label, *positions[n : n + 16].ravel()] for n in range(frames)]
    np.savetxt(path, rows, delimiter=",", fmt="%.9g")


def write_vowels(folder: Path, count: int = 36) -> None:
    """Both ``.ts`` files, with sequences of 7 to 29 steps."""
    rng = np.random.default_rng(5)
    for part in ("TRAIN", "TEST"):
        lines = ["# random", "@problemName JapaneseVowels", "@classLabel true 1 2 3", "@data"]
        for number in range(count):
            label, length = number % 9 + 1, 7 + number % 23
            values = rng.normal(label / 5, 0.1, (12, length))
            dimensions = [",".join(f"{v:.6f}" for v in row) for row in values]
            lines.append(":".join([*dimensions, str(label)]))
        (folder / f"JapaneseVowels_{part}.ts").write_text("\n".join(lines) + "\n")
