"""Train a model that classifies commands for a smart home.

A small grammar generates the sentences. Some contain a correction ("turn the radio on no i mean
off"), so that the last intent counts.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

from edgeattn.layers import Attention

sys.path.append(str(Path(__file__).parents[1]))
from sample_training import Schedule, accuracy, finish, parse_options, train

TIME = 20
SEED = 0
# The metrics of the README.
measure = accuracy
INTENTS = ("on", "off", "brighter", "darker", "warmer", "colder")
SWITCHED = ("the lamp", "the radio", "the heating", "the fan", "the television", "everything")
ROOMS = ("in the kitchen", "in the hall", "in the bathroom", "upstairs", "in here", "")
OPENINGS = ("", "", "please", "could you", "would you please", "hello house")
ENDINGS = ("", "", "please", "now", "before i leave", "when i come home", "as soon as you can")
AMOUNTS = ("", "a little", "much", "a bit")
SLIPS = ("no i mean", "no wait", "sorry i meant")
# {} is the word for the intent.
SWITCHING = ("turn {what} {where} {}", "switch {} {what} {where}", "i want {what} {where} {}")
CHANGING = ("make it {much} {} {where}", "it should be {much} {} {where}", "{much} {} {where}")
OPPOSITES = {"on": "off", "off": "on"} | {
    "brighter": "darker",
    "darker": "brighter",
    "warmer": "colder",
    "colder": "warmer",
}
COMPLAINTS = {
    "too dark": "brighter",
    "too bright": "darker",
    "too cold": "warmer",
    "too hot": "colder",
}


def _words(*groups: tuple[str, ...]) -> list[str]:
    text = " ".join(phrase for group in groups for phrase in group)
    fields = ("{what}", "{where}", "{much}", "{}")
    return [word for word in text.split() if word not in fields]


# 0 is padding, 1 is an unknown word.
VOCABULARY = (
    "",
    "?",
    *sorted(
        {
            *_words(INTENTS, SWITCHED, ROOMS, OPENINGS, ENDINGS, AMOUNTS, SLIPS),
            *_words(SWITCHING, CHANGING, tuple(COMPLAINTS)),
            "is",
        }
    ),
)


def encode(sentence: str) -> np.ndarray:
    """Word ids, ``(TIME,)`` int32, padded with zeros at the end."""
    ids = {word: number for number, word in enumerate(VOCABULARY)}
    encoded = [ids.get(word, 1) for word in sentence.lower().split()][:TIME]
    return np.array(encoded + [0] * (TIME - len(encoded)), dtype="int32")


def sentence(rng: np.random.Generator) -> tuple[str, str]:
    """A random sentence and its intent."""

    def one(choices: tuple[str, ...]) -> str:
        return choices[rng.integers(len(choices))]

    where = one(ROOMS)
    if rng.random() < 0.2:
        complaint = one(tuple(COMPLAINTS))
        core, intent = f"it is {complaint} {where}", COMPLAINTS[complaint]
    else:
        intent = one(INTENTS)
        form = one(SWITCHING if intent in ("on", "off") else CHANGING)
        slip = rng.random() < 0.25
        word = OPPOSITES[intent] if slip else intent
        core = form.format(word, what=one(SWITCHED), where=where, much=one(AMOUNTS))
        if slip:
            core += f" {one(SLIPS)} {intent}"
    return " ".join(f"{one(OPENINGS)} {core} {one(ENDINGS)}".split()), intent


def sequences(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Word ids, ``(count, TIME)``, and intents, ``(count,)``."""
    rng = np.random.default_rng(seed)
    sentences = [sentence(rng) for _ in range(count)]
    x = np.stack([encode(text) for text, _ in sentences])
    return x, np.array([INTENTS.index(intent) for _, intent in sentences])


def with_unknown_words(x: np.ndarray, seed: int) -> np.ndarray:
    """``x`` with a tenth of the words replaced by 1, so that no single word decides."""
    lost = np.random.default_rng(seed).random(x.shape) < 0.1
    return np.where(lost & (x > 0), 1, x).astype(x.dtype)


def build() -> keras.Model:
    """Embedding 16 with a mask, BiLSTM 2 x 24, dropout 0.2, attention 32 (Luong), softmax."""
    return keras.Sequential(
        [
            keras.Input((TIME,), dtype="int32"),
            keras.layers.Embedding(len(VOCABULARY), 16, mask_zero=True),
            keras.layers.Bidirectional(keras.layers.LSTM(24, return_sequences=True)),
            keras.layers.Dropout(0.2),
            Attention(32, name="attention"),
            keras.layers.Dense(len(INTENTS), activation="softmax"),
        ]
    )


def main() -> None:
    options = parse_options(__doc__, Path(__file__).parent)
    count, epochs, batch = (500, 1, 100) if options.quick else (6_000, 5, 32)
    x, y = sequences(count, SEED)
    schedule = Schedule(epochs, batch, 3e-3)
    model = train(build, (with_unknown_words(x, SEED), y), schedule, SEED)
    metrics = measure(model, *sequences(5000, SEED + 1))
    finish(options.output, model, sequences(200, SEED + 2), metrics)


if __name__ == "__main__":
    main()
