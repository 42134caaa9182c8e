"""The Large Movie Review Dataset (Maas et al. 2011) as the numbers of words, from any of its forms.

Keras' own ``imdb.npz`` was made by a Tokenizer that had seen the training reviews: lower case,
punctuation out, words numbered by how often they occur. From texts the same is done here; ties may
be numbered otherwise, so a model fits the form of the data that it was trained on.
"""

from __future__ import annotations

import collections
import gzip
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np

from public_data import Data, Remote, check, fetch, find, loader, missing

ARCHIVE = Remote(
    "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
)
KERAS_SHA256 = "69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f"
# As keras.datasets.imdb numbers them: 0 pads, and words follow from 4, the most frequent first.
START, UNKNOWN, OFFSET = 1, 2, 3
SEPARATORS = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', " "))

Texts = tuple[list[str], np.ndarray]


@loader
def reviews(data: Path | None, words: int, steps: int) -> tuple[Data, dict[str, int]]:
    """Word numbers ``(n, steps)`` int32, padded in front, and labels, 1 for a good review.

    And the rank of each word, which Keras' own file does not bring: empty then.
    """
    if data is None:
        data = fetch(ARCHIVE)
    numbers = find(data, "imdb.npz")
    if numbers is not None:
        return _from_keras(numbers, words, steps), {}
    archive = find(data, "aclImdb*.tar.gz")
    lines = find(data, "train.jsonl.gz")
    if archive is not None:
        check(archive, ARCHIVE.sha256)
        parts = read_archive(archive)
    elif lines is not None:
        parts = {p: read_lines(lines.with_name(f"{p}.jsonl.gz")) for p in ("train", "test")}
    else:
        raise missing(data, "train.jsonl.gz and test.jsonl.gz, imdb.npz, aclImdb_v1.tar.gz")
    (texts, y), (test_texts, y_test) = parts["train"], parts["test"]
    split, split_test = [list(map(tokens, part)) for part in (texts, test_texts)]
    ranks = rank(split)
    x, x_test = (
        pad([numbered(review, ranks) for review in part], words, steps)
        for part in (split, split_test)
    )
    source = "texts of the Large Movie Review Dataset, words numbered by the training reviews"
    return Data(x, y, x_test, y_test, source), ranks


def tokens(text: str) -> list[str]:
    """Words in lower case; what is between spaces once punctuation, not apostrophes, is out."""
    return [word for word in text.lower().translate(SEPARATORS).split(" ") if word]


def rank(reviews: Sequence[Sequence[str]]) -> dict[str, int]:
    """1 for the most frequent word, 2 for the next."""
    counts = collections.Counter(word for review in reviews for word in review)
    return {word: place for place, (word, _) in enumerate(counts.most_common(), 1)}


def numbered(review: Sequence[str], ranks: dict[str, int]) -> list[int]:
    """The ranks of a review's words, without those that no training review has, as Keras does."""
    return [ranks[word] for word in review if word in ranks]


def pad(reviews: Sequence[Sequence[int]], words: int, steps: int) -> np.ndarray:
    """Ranks as ``(n, steps)`` numbers below ``words``: the last ``steps``, zeros in front."""
    padded = np.zeros((len(reviews), steps), "int32")
    for row, review in zip(padded, reviews, strict=True):
        found = [START, *(r + OFFSET if r + OFFSET < words else UNKNOWN for r in review)]
        found = found[-steps:]
        row[-len(found) :] = found
    return padded


def read_lines(path: Path) -> Texts:
    """A JSON object a line, ``text`` and ``label`` among its keys."""
    if not path.is_file():
        raise click.ClickException(f"{path} was expected beside the other file, and is not there.")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row["text"] for row in rows], np.array([row["label"] for row in rows])


def read_archive(path: Path) -> dict[str, Texts]:
    """The authors' archive: a file a review, in folders ``pos`` and ``neg``."""
    found: dict[str, list[tuple[str, str, int]]] = {"train": [], "test": []}
    for part, label, name, text in _members(path):
        found[part].append((name, text, label))
    # The order in an archive is accidental, and so are ties among words.
    return {
        part: ([text for _, text, _ in sorted(rows)], np.array([row[2] for row in sorted(rows)]))
        for part, rows in found.items()
    }


def _members(path: Path) -> Iterator[tuple[str, int, str, str]]:
    with tarfile.open(path) as archive:
        for member in archive:
            folders = member.name.split("/")
            if len(folders) != 4 or folders[1] not in ("train", "test") or not member.isfile():
                continue
            if folders[2] not in ("pos", "neg") or not member.name.endswith(".txt"):
                continue
            file = archive.extractfile(member)
            assert file is not None
            text = file.read().decode("utf-8")
            yield folders[1], int(folders[2] == "pos"), member.name, text


def _from_keras(path: Path, words: int, steps: int) -> Data:
    # Its arrays are pickled: read as such only because it is, to the last bit, the file we know.
    check(path, KERAS_SHA256)
    with np.load(path, allow_pickle=True) as arrays:
        x, x_test = (pad(arrays[f"x_{part}"], words, steps) for part in ("train", "test"))
        y, y_test = (arrays[f"y_{part}"].astype("int64") for part in ("train", "test"))
    return Data(x, y, x_test, y_test, "Keras' imdb.npz")
