"""Train a model that recognizes digits in a synthesized voice.

A digit is a sequence of one to three vowels, each of three tones at its formants that pulse with
the pitch of the voice. Voices differ in pitch and in the length of the vocal tract, words in speed
and position, and noise is added. The spectrograms are those of ``tf.signal``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from edgeattn.layers import Attention

sys.path.append(str(Path(__file__).parents[1]))
from sample_training import Schedule, accuracy, finish, parse_options, train

SEED = 0
# The metrics of the README.
measure = accuracy
RATE = 8000
LENGTH = 6144
FRAME, STEP, BANDS = 512, 256, 20
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Formants in Hz, which are roughly those of a man's vowels.
VOWELS = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
    "r": (490, 1350, 1690),
}
WORDS = ("iro", "ua", "tu", "tri", "or", "ai", "ie", "eea", "ei", "aie")
# The consonant t is a short noise.
LOUDNESS = (1.0, 0.5, 0.25)


def sounds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """16-bit sounds, ``(count, LENGTH)``, and their digits, ``(count,)``."""
    rng = np.random.default_rng(seed)
    digits = rng.integers(len(DIGITS), size=count)
    values = np.concatenate(
        [_voices(digits[first : first + 250], rng) for first in range(0, count, 250)]
    )
    return (32767 * values).astype("int16"), digits


def _voices(digits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    count = len(digits)
    one = (count, 1)
    time = np.arange(LENGTH) / RATE
    length = rng.uniform(0.35, 0.55, one)
    start = rng.uniform(0.02, LENGTH / RATE - 0.02 - length)
    # 0 at the start of the word, 1 at its end.
    position = (time - start) / length
    formants, burst = _formants(digits, position)
    formants *= rng.uniform(0.9, 1.2, (count, 1, 1))
    pitch = rng.uniform(90, 220, one) * (1 + rng.uniform(-0.2, 0.2, one) * position)
    pulse = 0.6 + 0.4 * np.sin(2 * np.pi * np.cumsum(pitch, 1) / RATE)
    tones = np.sin(2 * np.pi * np.cumsum(formants, 2) / RATE)
    loud = np.clip(8 * np.minimum(position, 1 - position), 0, 1)
    voice = loud * pulse * np.tensordot(tones, LOUDNESS, (1, 0))
    voice += 0.5 * burst * rng.normal(size=(count, LENGTH))
    noise = rng.uniform(0.002, 0.03, one) * rng.normal(size=(count, LENGTH))
    return np.clip(rng.uniform(0.1, 0.4, one) * voice + noise, -1, 1)


def _formants(digits: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Formants, ``(count, 3, LENGTH)``, that glide from vowel to vowel, and where noise is."""
    formants = np.empty((len(digits), 3, LENGTH))
    burst = np.zeros_like(position)
    for row, digit in enumerate(digits):
        vowels = [VOWELS[letter] for letter in WORDS[digit].replace("t", "")]
        centers = (np.arange(len(vowels)) + 0.5) / len(vowels)
        for number, frequencies in enumerate(zip(*vowels, strict=True)):
            formants[row, number] = np.interp(position[row], centers, frequencies)
        if WORDS[digit].startswith("t"):
            burst[row] = (position[row] > 0) & (position[row] < 0.1)
    return formants, burst


def spectrograms(sound: np.ndarray) -> np.ndarray:
    """Mel spectrograms of 16-bit sounds, ``(count, frames, BANDS)``, as ``preprocess.toml``."""
    spectrum = tf.abs(tf.signal.stft(tf.constant(sound, tf.float32) / 32768, FRAME, STEP)) ** 2
    bands = tf.signal.linear_to_mel_weight_matrix(BANDS, FRAME // 2 + 1, RATE, 80.0, 3800.0)
    return (tf.math.log(spectrum @ bands + 1e-3) * 0.2).numpy()


def sequences(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Spectrograms, ``(count, frames, BANDS)``, and digits, ``(count,)``."""
    sound, digits = sounds(count, seed)
    return spectrograms(sound), digits


def build() -> keras.Model:
    """GRU 32, attention with 32 units (Luong), softmax over ten digits."""
    frames = 1 + (LENGTH - FRAME) // STEP
    return keras.Sequential(
        [
            keras.Input((frames, BANDS), name="spectrogram"),
            keras.layers.GRU(32, return_sequences=True),
            Attention(32, name="attention"),
            keras.layers.Dense(len(DIGITS), activation="softmax", name="digit"),
        ]
    )


def main() -> None:
    options = parse_options(__doc__, Path(__file__).parent)
    count, epochs, batch = (200, 1, 50) if options.quick else (4000, 15, 32)
    schedule = Schedule(epochs, batch, 5e-3)
    model = train(build, sequences(count, SEED), schedule, SEED)
    metrics = measure(model, *sequences(5000, SEED + 1))
    finish(options.output, model, sequences(200, SEED + 2), metrics)


if __name__ == "__main__":
    main()
