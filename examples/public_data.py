"""Loaders of the public data sets of the examples, which are not part of this project.

Every loader takes a local copy or downloads the file from its official address and compares its
SHA-256. Archives are read without unpacking.
"""

from __future__ import annotations

import functools
import hashlib
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import click
import keras
import numpy as np

Parameters = ParamSpec("Parameters")
Loaded = TypeVar("Loaded")
READ_ERRORS = (zipfile.BadZipFile, tarfile.TarError, zlib.error)


@dataclass(frozen=True)
class Data:
    """Training and test rows with class indices; ``source`` is a description of the data."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    source: str

    def subset(self, count: int, seed: int) -> Data:
        """At most ``count`` random training rows and as many test rows."""
        permutation = np.random.default_rng(seed).permutation
        train, test = permutation(len(self.x))[:count], permutation(len(self.x_test))[:count]
        return Data(self.x[train], self.y[train], self.x_test[test], self.y_test[test], self.source)


@dataclass(frozen=True)
class RemoteFile:
    """The official address of a file, and its SHA-256."""

    address: str
    sha256: str

    @property
    def name(self) -> str:
        return self.address.rsplit("/", 1)[-1].replace("+", "_").replace("%20", "_")


# Anguita, Ghio, Oneto, Parra and Reyes-Ortiz 2013, CC BY 4.0.
HAR = RemoteFile(
    "https://archive.ics.uci.edu/static/public/240/human+activity+recognition+using+smartphones.zip",
    "c00b803081a5c797cd5e4b83700a9810b38d53d9d84e01917e090e1fdbc81031",
)
HAR_SIGNALS = tuple(
    f"{signal}_{axis}" for signal in ("body_acc", "body_gyro", "total_acc") for axis in "xyz"
)
# Apache-2.0, from the repository in the address.
GESTURES = RemoteFile(
    "https://raw.githubusercontent.com/Kazuhito00/hand-gesture-recognition-using-mediapipe/"
    "19311a68b16b42d3ee89e505e3f185693dbd7147/model/point_history_classifier/point_history.csv",
    "13a9881cd5e047bd1e8317e217ad70eebf09d8635fe9b34c2f4385d016f22b0c",
)
# Kudo, Toyama and Shimbo 1999, from the UEA archive, in the copy of sktime.
VOWELS = {
    part: RemoteFile(
        "https://raw.githubusercontent.com/sktime/sktime/7bd7d1620c0656f3210eeb850bb1c0034159ee47/"
        f"sktime/datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts",
        sha256,
    )
    for part, sha256 in {
        "TRAIN": "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
        "TEST": "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
    }.items()
}
VOWEL_STEPS = 29


def fetch(remote: RemoteFile) -> Path:
    """Download a file to the cache of Keras, if it is not there, and check its SHA-256."""
    try:
        path = keras.utils.get_file(
            remote.name, remote.address, file_hash=remote.sha256, hash_algorithm="sha256"
        )
    except Exception as error:  # Keras raises it for any response of a server
        raise click.ClickException(
            f"Downloading {remote.address} failed: {error}\nPass a local copy: --data PATH"
        ) from error
    check(Path(path), remote.sha256)
    return Path(path)


def check(path: Path, sha256: str) -> None:
    """Raise :class:`click.ClickException` if the SHA-256 of the file is different."""
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != sha256:
        raise click.ClickException(
            f"{path} is not the expected file: its SHA-256 is {actual}, not {sha256}.\n"
            "Remove it and run again, or pass another copy: --data PATH"
        )


def find(data: Path, *names: str) -> Path | None:
    """The first match of one of ``names``: ``data`` itself, or in it, or one folder down."""
    if data.is_file():
        return data if any(data.match(name) for name in names) else None
    for name in names:
        matches = sorted(data.glob(name)) + sorted(data.glob(f"*/{name}"))
        if matches:
            return matches[0]
    return None


def missing(data: Path, expected: str) -> click.ClickException:
    """The error for a ``--data`` without any of the expected files."""
    return click.ClickException(
        f"--data {data} has none of the expected files: {expected}.\n"
        "Omit --data to download the data from its official address."
    )


def loader(function: Callable[Parameters, Loaded]) -> Callable[Parameters, Loaded]:
    """Decorate a loader so that errors in the files of the user are reported without traceback."""

    @functools.wraps(function)
    def wrapper(*arguments: Parameters.args, **named: Parameters.kwargs) -> Loaded:
        try:
            return function(*arguments, **named)
        except (ValueError, LookupError, OSError, EOFError, *READ_ERRORS) as error:
            raise click.ClickException(
                f"{function.__name__}() cannot read the data: {error}\n"
                "Pass another copy with --data, or omit it to download the data."
            ) from error

    return wrapper


# Activity: windows of 128 steps at 50 Hz, nine signals of a phone worn at the waist, six activities


@loader
def activity(data: Path | None) -> Data:
    """UCI HAR as ``(n, 128, 9)`` float32: body acceleration, gyroscope, total acceleration.

    The training and test sets contain different people, as split by the authors.
    """
    if data is None:
        data = fetch(HAR)
    subset = find(data, "uci_har_subset.npz", "*.npz")
    if subset is not None:
        with np.load(subset) as arrays:
            parts = {name: arrays[name] for name in ("x_train", "y_train", "x_test", "y_test")}
        return _har(parts, f"{subset.name}: a subset of the windows of UCI HAR")
    archive = find(data, "*human*activity*.zip", "UCI*HAR*.zip", "*.zip")
    if archive is None:
        raise missing(data, "uci_har_subset.npz, or the zip of the UCI repository")
    with zipfile.ZipFile(archive) as opened:
        nested = [name for name in opened.namelist() if name.endswith("UCI HAR Dataset.zip")]
        if not nested:
            return _har(_har_archive(opened), "UCI HAR, all windows")
        with zipfile.ZipFile(io.BytesIO(opened.read(nested[0]))) as inner:
            return _har(_har_archive(inner), "UCI HAR, all windows")


def _har_archive(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    def text(part: str, name: str) -> np.ndarray:
        (member,) = (
            n for n in archive.namelist() if n.endswith(f"{part}/{name}") and "__MACOSX" not in n
        )
        return np.loadtxt(io.BytesIO(archive.read(member)), dtype="float32", ndmin=1)

    parts = {}
    for part in ("train", "test"):
        signals = [text(part, f"Inertial Signals/{name}_{part}.txt") for name in HAR_SIGNALS]
        parts[f"x_{part}"] = np.stack(signals, axis=-1)  # (n, 128, 9)
        parts[f"y_{part}"] = text(part, f"y_{part}.txt")
    return parts


def _har(parts: Mapping[str, np.ndarray], source: str) -> Data:
    x, x_test = (parts[f"x_{part}"].astype("float32") for part in ("train", "test"))
    y, y_test = (parts[f"y_{part}"].astype("int64") - 1 for part in ("train", "test"))
    if x.shape[1:] != (128, 9) or x_test.shape[1:] != (128, 9) or y.min() < 0 or y.max() > 5:
        raise click.ClickException(
            f"Expected windows of (128, 9) and labels 1 to 6. Received: {x.shape}, labels "
            f"{y.min() + 1} to {y.max() + 1}."
        )
    return Data(x, y, x_test, y_test, source)


# Gestures: the last 16 positions of a fingertip, four movements


@loader
def gestures(data: Path | None) -> Data:
    """Finger positions as ``(n, 16, 2)`` float32; the last quarter of each movement is the test.

    Rows were logged frame by frame, so neighboring rows share 15 of 16 positions. A random split
    would put training data into the test. Each recording is split by time instead, without the 16
    rows at the split, which share positions with both sides.
    """
    path = fetch(GESTURES) if data is None else find(data, "point_history.csv", "*.csv")
    if path is None:
        raise missing(data or Path(), "point_history.csv")
    rows = np.loadtxt(path, delimiter=",", dtype="float32", ndmin=2)
    if rows.shape[1] != 33:
        raise click.ClickException(
            f"{path} should have 33 columns, a label and 16 steps of 2 numbers. "
            f"Received: {rows.shape[1]}."
        )
    x, y = rows[:, 1:].reshape(-1, 16, 2), rows[:, 0].astype("int64")
    train, test = [], []
    for label in np.unique(y):
        own = np.flatnonzero(y == label)
        split = len(own) * 3 // 4
        train.append(own[: split - 16])
        test.append(own[split:])
    a, b = np.concatenate(train), np.concatenate(test)
    return Data(x[a], y[a], x[b], y[b], path.name)


# Vowels: nine speakers, 7 to 29 steps of 12 coefficients


@loader
def vowels(data: Path | None) -> Data:
    """Japanese vowels as ``(n, 29, 12)`` float32, padded with zeros at the end."""
    parts = {}
    for part, remote in VOWELS.items():
        path = fetch(remote) if data is None else find(data, f"*_{part}.ts")
        if path is None:
            raise missing(data or Path(), "JapaneseVowels_TRAIN.ts and JapaneseVowels_TEST.ts")
        parts[part] = read_ts(path)
    return Data(*parts["TRAIN"], *parts["TEST"], "JapaneseVowels of the UEA archive")


def read_ts(path: Path, steps: int = VOWEL_STEPS) -> tuple[np.ndarray, np.ndarray]:
    """Read the series of a ``.ts`` file, ``(n, steps, dimensions)``, and their class indices.

    A line is a sample: its dimensions and its class, separated by colons. The values of a dimension
    are separated by commas. Short series are padded with zeros. Classes count from 1 in the file.
    """
    series, labels = [], []
    body = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if body and line.strip():
            *dimensions, label = line.split(":")
            values = np.array([[float(v) for v in d.split(",")] for d in dimensions], "float32")
            series.append(np.pad(values.T, [(0, steps - values.shape[1]), (0, 0)]))
            labels.append(int(label) - 1)
        body = body or line.strip().lower() == "@data"
    if not series:
        raise click.ClickException(f"{path} has no samples after a line @data.")
    return np.stack(series), np.array(labels)
