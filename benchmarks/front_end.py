"""Measure what raw input costs beside the network, on the sample models that take it.

    python -m benchmarks.front_end [--renew]

For one window: the bare call of ``edgeattn.load`` with prepared inputs, the front end alone and for
the next window of a stream, the preparation by plain NumPy with everything computed in advance, and
``run --stream`` from its input to its line. All are CPU times, of the worker process too, because
other load of the machine lengthens the time by the clock. The shortest of several rounds is
reported.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import edgeattn
from benchmarks import page
from edgeattn.bundle.bundle import Bundle
from edgeattn.cli.output import emit_line
from edgeattn.inference.raw import RawModel
from edgeattn.inference.run import stream_raw

RECORDED = page.RESULTS / "front_end.json"
# Windows of a short stream, and those that a long one has in addition; calls in a round.
WARM, COUNTED, CALLS, ROUNDS = 50, 800, 100, 5
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


def stream_of(name: str, folder: Path, windows: int) -> tuple[bytes, bool]:
    """The input of ``run --stream`` for so many windows, and whether it is sound."""
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
    """The CPU time of a call in this process."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(CALLS):
            call()
        rounds.append((time.process_time() - start) / CALLS)
    return round(1e3 * min(rounds), 4)


def cpu_seconds() -> float:
    """The CPU time of this process and of its children that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def stream_milliseconds(bundle: Bundle, name: str, folder: Path) -> float:
    """The CPU time of ``run --stream`` for a window, without that of its start."""
    rounds = []
    for _ in range(ROUNDS):
        seconds = []
        for windows in (WARM, WARM + COUNTED):
            data, pcm = stream_of(name, folder, windows)
            source = io.BufferedReader(io.BytesIO(data))
            start = cpu_seconds()
            with Path(os.devnull).open("w") as file, contextlib.redirect_stdout(file):
                for answer in stream_raw(bundle, source, pcm=pcm):
                    emit_line(answer)
            seconds.append(cpu_seconds() - start)
        rounds.append((seconds[1] - seconds[0]) / COUNTED)
    return round(1e3 * min(rounds), 4)


def measure(name: str, folder: Path) -> dict[str, float]:
    path = bundle(name, folder)
    opened = Bundle.open(path)
    model = edgeattn.load(path)
    front_end = opened.front_end()
    assert front_end is not None
    raw_model = RawModel(front_end, model.inputs, (), lambda inputs: inputs)
    data, pcm = stream_of(name, folder, 1)
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
    row["in_stream"] = row["front_end"]
    if pcm:
        readings = np.float32(raw)
        row["in_stream"] = milliseconds(lambda: raw_model.prepare_window(readings, is_next=True))
        by_numpy = spectrograms_by_numpy()
        difference = np.abs(by_numpy(raw) - prepared["spectrogram"][0]).max()
        if difference > 1e-3:
            raise ValueError(f"the spectrogram of NumPy differs by {difference:.1e}")
        row["numpy"] = milliseconds(lambda: by_numpy(raw))
    row["stream"] = stream_milliseconds(opened, name, folder)
    return row


def table(results: dict[str, dict[str, float]]) -> str:
    lines = [
        "| model | network (ms) | front end (ms) | in a stream (ms) | NumPy (ms) "
        "| `run --stream` (ms) | added (ms) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in results.items():
        numpy = f"{row['numpy']:.3f}" if "numpy" in row else "-"
        lines.append(
            f"| {name} | {row['network']:.3f} | {row['front_end']:.3f} | {row['in_stream']:.3f} "
            f"| {numpy} | {row['stream']:.3f} | {added(row):.3f} |"
        )
    return "\n".join(lines)


def added(row: dict[str, float]) -> float:
    """What the stream costs beside the network and the front end: parsing, windows, a process,
    the answer and its line."""
    return row["stream"] - row["network"] - row["in_stream"]


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
    slow = [name for name, row in results.items() if row["in_stream"] > row["network"]]
    slow += [name for name, row in results.items() if added(row) > LIMIT_MS]
    if slow:
        sys.exit(f"Slower than the limits: {', '.join(dict.fromkeys(slow))}")


if __name__ == "__main__":
    main()
