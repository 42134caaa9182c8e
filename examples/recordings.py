"""Write recordings for the sample models that take raw input: sentences, readings or sound.

    python examples/recordings.py commands recorded

writes to the folder ``recorded``: ``samples`` with raw samples for the reference, ``prepared.npz``
with what the code beside the training makes of them, ``data`` with other raw samples and their
labels, and ``stream``, what the sensor or the microphone sends. All are generated from fixed seeds.
"""

from __future__ import annotations

import argparse
import json
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sample_scripts import SAMPLE_MODELS, sample_script

SAMPLES, REFERENCE, STREAMED = 240, 40, 8


def commands(folder: Path) -> list[str]:
    """Sentences, some with a word that the model does not know; the labels of the stream."""
    module, rng = sample_script("commands"), np.random.default_rng(11)
    sentences, intents = zip(*(module.sentence(rng) for _ in range(SAMPLES)), strict=True)
    texts = [f"Well {text}".title() if n % 3 == 0 else text for n, text in enumerate(sentences)]
    for name, count in (("samples", REFERENCE), ("stream", STREAMED)):
        lines = "".join(f"{text}\n" for text in texts[:count])
        (folder / f"{name}.txt").write_text(lines, "utf-8")
    prepared = [module.encode(text) for text in texts[:REFERENCE]]
    np.savez(folder / "prepared.npz", x=np.stack(prepared))
    pairs = zip(texts, intents, strict=True)
    data = "".join(json.dumps({"x": text, "y": intent}) + "\n" for text, intent in pairs)
    (folder / "data.jsonl").write_text(data, "utf-8")
    return list(intents[:STREAMED])


def readings(count: int) -> np.ndarray:
    """Readings of a phone, ``(count, 9)``: it lies, is carried, and stands still, in turn.

    They have the order, units and rough sizes of the signals of UCI HAR, and come from no person.
    """
    rng, time = np.random.default_rng(12), np.arange(count) / 50
    phase = (np.arange(count) // 640) % 3
    gravity = np.where((phase == 0)[:, None], [0.1, 0.2, 0.97], [0.98, -0.2, -0.1])
    walking = (phase == 1)[:, None]
    swing = np.sin(2 * np.pi * time[:, None] * [2.0, 2.0, 1.0] + [0, 1, 2])
    body = np.where(walking, 0.3 * swing, 0) + 0.01 * rng.normal(size=(count, 3))
    turn = np.where(walking, 0.7 * np.roll(swing, 1, 1), 0) + 0.02 * rng.normal(size=(count, 3))
    return np.concatenate([body, turn, body + gravity], 1).astype("float32")


def activity(folder: Path) -> list[str]:
    """Readings. Their labels are the answers of Keras, because nobody carried the phone."""
    import keras

    import edgeattn.layers  # noqa: F401  registers the layer of the file

    rows = readings(64 * (SAMPLES + 1))
    windows = np.stack([rows[start : start + 128] for start in range(0, 64 * SAMPLES, 64)])
    model = keras.saving.load_model(SAMPLE_MODELS / "activity" / "model.h5")
    y = model.predict(windows, verbose=0).argmax(1)
    for name, count in (("samples", REFERENCE), ("stream", STREAMED)):
        np.savetxt(folder / f"{name}.csv", rows[: 64 * (count + 1)], delimiter=",", fmt="%.9g")
    np.savez(folder / "prepared.npz", x=windows[:REFERENCE])
    np.savez(folder / "data.npz", x=windows, y=y)
    names = ("walking", "upstairs", "downstairs", "sitting", "standing", "lying")
    return [names[number] for number in y[:STREAMED]]


def spoken_digits(folder: Path) -> list[str]:
    """Words in a synthesized voice; those of the stream follow each other without a gap."""
    module = sample_script("spoken_digits")
    sound, y = module.sounds(SAMPLES, 13)
    raw = sound.astype("float32") / 32768
    np.savez(folder / "samples.npz", x=raw[:REFERENCE])
    np.savez(folder / "prepared.npz", x=module.spectrograms(sound[:REFERENCE]))
    np.savez(folder / "data.npz", x=raw, y=y)
    with wave.open(str(folder / "stream.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(module.RATE)
        file.writeframes(sound[:STREAMED].astype("<i2").tobytes())
    return [module.DIGITS[number] for number in y[:STREAMED]]


RECORDINGS: dict[str, Callable[[Path], list[str]]] = {
    "commands": commands,
    "activity": activity,
    "spoken_digits": spoken_digits,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=RECORDINGS)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    labels = RECORDINGS[options.model](options.folder)
    print("Labels of the stream:", *labels)


if __name__ == "__main__":
    main()
