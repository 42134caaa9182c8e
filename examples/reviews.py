"""The Large Movie Review Dataset (Maas et al. 2011) as word ids, from any of its formats.

``imdb.npz`` of Keras was created by a Tokenizer: lower case, no punctuation, word ids by frequency
in the training reviews. Texts are processed in the same way here. Words of equal frequency may get
other ids, so a model only fits the format of the data that it was trained on.
"""

from __future__ import annotations

import collections
import gzip
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click
import numpy as np

from public_data import Data, RemoteFile, check, fetch, find, loader, missing

ARCHIVE = RemoteFile(
    "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
)
KERAS_SHA256 = "69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f"
# As in keras.datasets.imdb: 0 is padding, and words start at 4, the most frequent first.
START, UNKNOWN, OFFSET = 1, 2, 3
SEPARATORS = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', " "))

Texts = tuple[list[str], np.ndarray]


@loader
def load_reviews(data: Path | None, words: int, steps: int) -> tuple[Data, dict[str, int]]:
    """Word ids ``(n, steps)`` int32, padded in front, labels (1 for good), and word ranks.

    The ranks are empty for ``imdb.npz``, which does not contain them.
    """
    if data is None:
        data = fetch(ARCHIVE)
    keras_file = find(data, "imdb.npz")
    if keras_file is not None:
        return _from_keras(keras_file, words, steps), {}
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
    split, split_test = [list(map(tokenize, part)) for part in (texts, test_texts)]
    ranks = rank(split)
    x, x_test = (
        pad([word_ranks(review, ranks) for review in part], words, steps)
        for part in (split, split_test)
    )
    source = "texts of the Large Movie Review Dataset, words numbered by the training reviews"
    return Data(x, y, x_test, y_test, source), ranks


def tokenize(text: str) -> list[str]:
    """Words in lower case, without punctuation except apostrophes."""
    return [word for word in text.lower().translate(SEPARATORS).split(" ") if word]


def rank(reviews: Sequence[Sequence[str]]) -> dict[str, int]:
    """The rank of every word by frequency, from 1."""
    counts = collections.Counter(word for review in reviews for word in review)
    return {word: position for position, (word, _) in enumerate(counts.most_common(), 1)}


def word_ranks(review: Sequence[str], ranks: Mapping[str, int]) -> list[int]:
    """The ranks of the words of a review; unknown words are omitted, as in Keras."""
    return [ranks[word] for word in review if word in ranks]


def pad(reviews: Sequence[Sequence[int]], words: int, steps: int) -> np.ndarray:
    """Ranks as word ids below ``words``, ``(n, steps)``: the last ``steps``, padded in front."""
    padded = np.zeros((len(reviews), steps), "int32")
    for row, review in zip(padded, reviews, strict=True):
        ids = [START, *(r + OFFSET if r + OFFSET < words else UNKNOWN for r in review)]
        ids = ids[-steps:]
        row[-len(ids) :] = ids
    return padded


def read_lines(path: Path) -> Texts:
    """Read a file with a JSON object per line, with the keys ``text`` and ``label``."""
    if not path.is_file():
        raise click.ClickException(f"{path} is missing. Put it beside the other file.")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row["text"] for row in rows], np.array([row["label"] for row in rows])


def read_archive(path: Path) -> dict[str, Texts]:
    """Read the archive of the authors: a file per review, in folders ``pos`` and ``neg``."""
    reviews: dict[str, list[tuple[str, str, int]]] = {"train": [], "test": []}
    for part, label, name, text in _members(path):
        reviews[part].append((name, text, label))
    # Sort by name: the order in the archive would decide between words of equal frequency.
    return {
        part: ([text for _, text, _ in sorted(rows)], np.array([row[2] for row in sorted(rows)]))
        for part, rows in reviews.items()
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
    # The arrays are pickled. Reading them is safe because the SHA-256 of the file is known.
    check(path, KERAS_SHA256)
    with np.load(path, allow_pickle=True) as arrays:
        x, x_test = (pad(arrays[f"x_{part}"], words, steps) for part in ("train", "test"))
        y, y_test = (arrays[f"y_{part}"].astype("int64") for part in ("train", "test"))
    return Data(x, y, x_test, y_test, "Keras' imdb.npz")
