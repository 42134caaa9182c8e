"""Sound over HTTP: the bytes of a ``.wav`` file, with the values of one window."""

import io
import random
import wave

import numpy as np
import pytest
from artifacts import dense, write_dense_bundle
from front_ends import LABELS, WINDOWS, add_front_end
from service_client import serving

from edgeattn.errors import SampleError
from edgeattn.frontend.answers import Answer
from edgeattn.frontend.description import FrontEnd
from edgeattn.frontend.windows import Window
from edgeattn.inference.raw_stream import read_sound

SOUND = FrontEnd({"x": ()}, Window(3, hop=1, sampling_rate=8000), Answer(labels=LABELS))
VALUES = [0, 16384, -32768]


def wav(values, rate=8000, channels=1):
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(np.asarray(values, "<i2").tobytes())
    return file.getvalue()


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """Services of a model that takes sound, and of one that does not."""
    folder = tmp_path_factory.mktemp("sound")
    bundles = [write_dense_bundle(folder / f"{n}.edge", formats=("onnx",)) for n in "ab"]
    for bundle, front_end in zip(bundles, (SOUND, WINDOWS), strict=True):
        add_front_end(bundle, front_end)
    with serving(bundles[0].path) as sound, serving(bundles[1].path) as readings:
        yield sound, readings


def test_the_answer_to_a_file(services):
    reply = services[0].post(wav(VALUES), Content_Type="audio/wav")
    scores = dense(np.float32([[0, 0.5, -1]]))[0]
    expected = {"label": LABELS[scores.argmax()], "score": float(scores.max())}
    assert (reply.status, reply.document) == (200, expected)
    assert services[0].post({"sample": [0, 0.5, -1]}).document == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (wav(VALUES, rate=16000), "16000 samples per second; the model takes 8000"),
        (wav(VALUES * 2, channels=2), "2 channels; the model takes 1"),
        (wav(VALUES[:2]), "A window has 3 readings; received 2"),
        (wav([]), "The .wav file has no values"),
        (b"RIFF", "The .wav file cannot be read: it ends early"),
        (wav(VALUES)[:-1], "The sound ends with 1 of the 2 bytes of a value"),
        (b"", "The .wav file cannot be read"),
        (b"[1, 2, 3]", "The .wav file cannot be read"),
    ],
)
def test_a_file_that_does_not_fit(services, body, message):
    reply = services[0].post(body, Content_Type="audio/wav")
    assert reply.status == 400
    assert message in reply.message


def test_a_model_that_takes_no_sound(services):
    reply = services[1].post(wav(VALUES), Content_Type="audio/wav")
    assert (reply.status, reply.message) == (400, "The model takes no sound.")


def test_the_description_names_the_type(services):
    types = []
    for service in services:
        operation = service.get("/openapi.json").document["paths"]["/answer"]["post"]
        types.append(list(operation["requestBody"]["content"]))
    assert types == [["application/json", "audio/wav"], ["application/json"]]


def test_a_damaged_file_is_read_or_refused():
    content, rng = wav(range(8)), random.Random(4)
    for _ in range(3000):
        damaged = bytearray(content[: rng.randrange(len(content) + 1)])
        for _ in range(rng.randrange(4)):
            if damaged:
                damaged[rng.randrange(len(damaged))] = rng.choice(
                    [0, 1, 127, 255, rng.randrange(256)]
                )
        try:
            values = read_sound(bytes(damaged), SOUND)
        except SampleError:
            continue
        assert values.dtype == np.float32
        assert np.abs(values).max(initial=0) <= 1
