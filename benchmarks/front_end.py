"""Measure what raw input costs beside the network, on the sample models that take it.

    python -m benchmarks.front_end [--renew]

For one window: the bare call of ``edgeattn.load`` with prepared inputs, the front end, the
preparation by plain NumPy with everything computed in advance, and ``run --stream`` from its input
to its line. Of the times of each, the tenth percentile is reported, because other load of the
machine lengthens the others.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import edgeattn
from benchmarks import page
from edgeattn.bundle.bundle import Bundle
from edgeattn.inference.raw import RawModel
from edgeattn.inference.run import stream_raw

RECORDED = page.RESULTS / "front_end.json"
# Windows of a stream that are not counted, and those that are.
WARM, COUNTED, ROUNDS = 50, 400, 400
LIMIT_MS = 0.2
SUFFIXES = {"commands": "txt", "activity": "csv", "spoken_digits": "npz"}


def bundle(name: str, folder: Path) -> Path:
    """The bundle of a sample model, converted once."""
    target = folder / f"{name}.edge"
    if not target.exists():
        model = page.ROOT / "sample_models" / name
        recordings = (str(page.ROOT / "examples" / "recordings.py"), name, str(folder / name))
        raw = folder / name / f"samples.{SUFFIXES[name]}"
        convert = (
            *("-P", "-m", "edgeattn", "convert", str(model / "model.h5"), "-o", str(target)),
            *("--preprocess", str(model / "preprocess.toml"), "--raw-samples", str(raw)),
            *("--scheme", "float32", "--format", "tflite", "--quiet"),
        )
        for arguments in (recordings, convert):
            subprocess.run([sys.executable, *arguments], check=True, cwd=page.ROOT)
    return target


def spectrograms_by_numpy() -> Callable[[np.ndarray], np.ndarray]:
    """The spectrogram of the spoken digits, with window and bands computed in advance."""
    from edgeattn.frontend.spectra import mel_matrix

    window = np.float32(np.hanning(513)[:-1])
    bands = np.float32(mel_matrix(20, 257, 8000.0, 80.0, 3800.0))

    def compute(sound: np.ndarray) -> np.ndarray:
        frames = np.lib.stride_tricks.sliding_window_view(sound, 512)[::256]
        spectrum = np.fft.rfft(frames * window)
        power = spectrum.real**2 + spectrum.imag**2
        return np.float32(np.log(power @ bands + 1e-3) * 0.2)

    return compute


def stream_of(name: str, folder: Path) -> tuple[bytes, bool]:
    """The input of ``run --stream`` for all windows, and whether it is sound."""
    windows = WARM + COUNTED
    if name == "commands":
        lines = (folder / name / "samples.txt").read_bytes().splitlines(keepends=True)
        return b"".join(itertools.islice(itertools.cycle(lines), windows)), False
    if name == "activity":
        lines = (folder / name / "samples.csv").read_bytes().splitlines(keepends=True)
        return b"".join(itertools.islice(itertools.cycle(lines), 64 * (windows + 1))), False
    with np.load(folder / name / "samples.npz") as arrays:
        sound = (arrays["x"] * 32768).astype("<i2").ravel()
    return np.resize(sound, 3072 * (windows + 1)).tobytes(), True


def milliseconds(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return tenth(times)


def tenth(seconds: Sequence[float]) -> float:
    """The tenth percentile in milliseconds."""
    return round(1e3 * float(np.percentile(seconds, 10)), 4)


def measure(name: str, folder: Path) -> dict[str, float]:
    path = bundle(name, folder)
    opened = Bundle.open(path)
    model = edgeattn.load(path)
    front_end = opened.front_end()
    assert front_end is not None
    raw_model = RawModel(front_end, model.inputs, (), lambda inputs: inputs)
    data, pcm = stream_of(name, folder)
    raw: Any
    if name == "commands":
        raw = data.splitlines()[0].decode()
    elif name == "activity":
        raw = np.loadtxt(io.BytesIO(data), delimiter=",", max_rows=128)
    else:
        raw = np.frombuffer(data, "<i2")[:6144].astype("float32") / 32768
    prepared = raw_model.prepare(raw)
    row = {"network": milliseconds(lambda: model(prepared))}
    row["front_end"] = milliseconds(lambda: raw_model.prepare(raw))
    if pcm:
        by_numpy = spectrograms_by_numpy()
        difference = np.abs(by_numpy(raw) - prepared["spectrogram"][0]).max()
        if difference > 1e-3:
            raise ValueError(f"the spectrogram of NumPy differs by {difference:.1e}")
        row["numpy"] = milliseconds(lambda: by_numpy(raw))
    arrivals = []
    for answer in stream_raw(opened, io.BufferedReader(io.BytesIO(data)), pcm=pcm):
        json.dumps(answer)
        arrivals.append(time.perf_counter())
    row["stream"] = tenth(np.diff(arrivals)[WARM - 1 :])
    return row


def table(results: dict[str, dict[str, float]]) -> str:
    lines = [
        "| model | network (ms) | front end (ms) | NumPy (ms) | `run --stream` (ms) | added (ms) |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in results.items():
        numpy = f"{row['numpy']:.3f}" if "numpy" in row else "-"
        lines.append(
            f"| {name} | {row['network']:.3f} | {row['front_end']:.3f} | {numpy} "
            f"| {row['stream']:.3f} | {added(row):.3f} |"
        )
    return "\n".join(lines)


def added(row: dict[str, float]) -> float:
    """What the stream costs beside the network and the front end: parsing, windows, a process."""
    return row["stream"] - row["network"] - row["front_end"]


def update() -> None:
    """Write the recorded results to the page."""
    text = page.with_section(page.PAGE.read_text(), "front end", table(page.read(RECORDED)))
    page.PAGE.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--renew", action="store_true", help="record the results")
    options = parser.parse_args()
    folder = page.SCRATCH / "front_end"
    folder.mkdir(parents=True, exist_ok=True)
    results = {name: measure(name, folder) for name in SUFFIXES}
    print(table(results))
    if options.renew:
        page.write(RECORDED, results)
        update()
    slow = [name for name, row in results.items() if row["front_end"] > row["network"]]
    slow += [name for name, row in results.items() if added(row) > LIMIT_MS]
    if slow:
        sys.exit(f"Slower than the limits: {', '.join(dict.fromkeys(slow))}")


if __name__ == "__main__":
    main()
