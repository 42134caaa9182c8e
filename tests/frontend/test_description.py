"""``frontend.json`` and the file of ``--preprocess``: what is read, and what is refused."""

import json

import numpy as np
import pytest

from edgeattn.errors import SampleError, UsageError
from edgeattn.frontend.answers import Answer
from edgeattn.frontend.description import (
    FrontEnd,
    from_bytes,
    from_document,
    from_toml,
)
from edgeattn.frontend.numeric import Normalization, PadSequences
from edgeattn.frontend.text import TextVectorization
from edgeattn.frontend.text_files import read_labels, read_lines
from edgeattn.frontend.windows import Window

FULL = FrontEnd(
    {
        "readings": (Normalization((1.0, 2.5), (0.1, 4.0), invert=True),),
        "text": (TextVectorization(("é", "b"), ngrams=(1, 2)), PadSequences(4, padding="post")),
    },
    Window(8, hop=4, columns=2, normalization="standard"),
    Answer(labels=("sitting", "walking"), smoothing="majority"),
)


def test_a_description_is_read_as_it_was_written():
    assert from_bytes(FULL.to_bytes()) == FULL
    assert from_bytes(FrontEnd().to_bytes()) == FrontEnd()


def test_defaults_are_not_written():
    assert FrontEnd({"x": (PadSequences(3),)}, answer=Answer()).to_json() == {
        "version": 1,
        "inputs": {"x": [{"step": "pad_sequences", "maxlen": 3}]},
        "answer": {},
    }


def test_toml(tmp_path):
    (tmp_path / "words.txt").write_text("the\ncat\n")
    file = tmp_path / "preprocess.toml"
    file.write_text(
        """
        [[inputs.words]]
        step = "text_vectorization"
        vocabulary = "words.txt"
        output_sequence_length = 3

        [[inputs.words]]
        step = "rescaling"
        scale = [2]

        [answer]
        kind = "regression"
        offset = [1]
        """
    )
    front_end = from_toml(file)
    np.testing.assert_array_equal(front_end.prepare("words", "Cat the dog!"), [6, 4, 2])
    assert front_end.answer == Answer(kind="regression", offset=(1.0,))
    assert front_end.takes_text("words")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "is not a table"),
        ({"input": {}}, "unknown key 'input'"),
        ({"stored_inputs": {"x": "y"}}, "unknown key 'stored_inputs'"),
        ({"inputs": []}, "inputs is not a table"),
        ({"inputs": {"x": {}}}, "inputs.x is not a list of steps"),
        ({"inputs": {"x": ["log"]}}, "inputs.x, step 1: the key 'step' is missing"),
        ({"inputs": {"x": [{"step": "eval"}]}}, "step 1: unknown step 'eval'"),
        ({"inputs": {"x": [{"step": "log", "ofset": 1}]}}, "unknown key 'ofset'"),
        ({"inputs": {"x": [{"step": "mfcc"}]}}, "the key 'num_coefficients' is missing"),
        ({"inputs": {"x": [{"step": "mfcc", "num_coefficients": 2.0}]}}, "2.0 is not an integer"),
        ({"inputs": {"x": [{"step": "mfcc", "num_coefficients": True}]}}, "True is not an integer"),
        ({"inputs": {"x": [{"step": "log", "offset": "1"}]}}, "'1' is not a number"),
        ({"inputs": {"x": [{"step": "log", "offset": float("nan")}]}}, "nan is not a finite"),
        ({"inputs": {"x": [{"step": "rescaling", "scale": 2}]}}, "2 is not a list"),
        ({"inputs": {"x": [{"step": "rescaling", "scale": [None]}]}}, r"scale\[0\]: None is not"),
        ({"inputs": {"x": [{"step": "stft", "window": "hann"}]}}, "'sequence_length' is missing"),
        ({"inputs": {"x": [{"step": "hashing", "num_bins": 0}]}}, "num_bins is 0"),
        ({"inputs": {"x": [{"step": "hashing", "num_bins": 2, "salt": [1, 2, 3]}]}}, "salt has 3"),
        (
            {"inputs": {"x": [{"step": "string_lookup", "vocabulary": ["a", "a"]}]}},
            "more than once",
        ),
        ({"inputs": {"x": [{"step": "string_lookup", "vocabulary": "/etc/passwd"}]}}, "not a list"),
        (
            {"inputs": {"x": [{"step": "stft_spectrogram", "frame_length": 10**6}]}},
            "must be from 1",
        ),
        ({"inputs": {"x": [{"step": "pad_sequences", "maxlen": 10**9}]}}, "maxlen is 1000000000"),
        (
            {"inputs": {"x": [{"step": "mel_spectrogram", "max_freq": float("inf")}]}},
            "inf is not a",
        ),
        (
            {
                "inputs": {
                    "x": [{"step": "string_lookup", "vocabulary": [], "mask_token": "\ud800"}]
                }
            },
            "not valid Unicode",
        ),
        ({"window": {"length": 0}}, "length is 0"),
        ({"window": {"length": 4, "missing": "skip"}}, "missing: unknown value 'skip'"),
        ({"answer": {"labels": ["a", "a"]}}, "a label occurs more than once"),
        ({"answer": {"kind": "tagging", "top": 2}}, "do not apply to kind = 'tagging'"),
    ],
)
def test_a_malformed_description_is_refused(document, message):
    with pytest.raises(UsageError, match=message) as caught:
        from_document(document, "frontend.json")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "version None instead of 1"),
        (b'{"version": 2}', "newer edgeattn"),
        (b'{"version": true}', "version True instead of 1"),
        (b'{"version": 1, "inputs": {"x": [{"step": "clip", "minimum": 1, "maximum": 0}]}}', "exc"),
    ],
)
def test_malformed_bytes_are_refused(content, message):
    with pytest.raises(UsageError, match=message):
        from_bytes(content)


def test_a_toml_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        from_toml(tmp_path / "missing.toml")
    (tmp_path / "a.toml").write_text("window = {")
    with pytest.raises(UsageError, match=r"a\.toml is not TOML"):
        from_toml(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("content", "message"),
    [("a\n\nb\n", "line 2 is empty"), ("a\nb\na\n", "line 3 repeats"), ("", "is empty")],
)
def test_labels_that_are_refused(tmp_path, content, message):
    (tmp_path / "labels.txt").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_labels(tmp_path / "labels.txt")


def test_labels(tmp_path):
    (tmp_path / "labels.txt").write_bytes("sitting \r\nwälking\r\n".encode())
    assert read_labels(tmp_path / "labels.txt") == ("sitting", "wälking")
    # Spreadsheets and editors write a byte order mark.
    (tmp_path / "labels.txt").write_bytes("sitting\nwalking\n".encode("utf-8-sig"))
    assert read_labels(tmp_path / "labels.txt") == ("sitting", "walking")
    # In a vocabulary, it may be part of the first word, as Keras reads such a file.
    with pytest.raises(UsageError, match="begins with a byte order mark"):
        read_lines(tmp_path / "labels.txt")


@pytest.mark.parametrize(
    ("table", "value", "message"),
    [
        ({"step": "normalization", "mean": [1, 2], "variance": [1, 2]}, [1, 2, 3], r"shape \(3,\)"),
        ({"step": "rescaling", "scale": [1, 2]}, [1, 2, 3], "with 2 factors"),
        ({"step": "rescaling", "scale": [1]}, ["a"], "is not a number"),
        ({"step": "rescaling", "scale": [1]}, [[1], [1, 2]], "no rectangular shape"),
        ({"step": "rescaling", "scale": [1]}, [np.nan], "not all finite"),
        ({"step": "discretization", "bin_boundaries": [0]}, [np.nan], "not all finite"),
        ({"step": "category_encoding", "num_tokens": 3}, [3], "3 is not a category from 0 to 2"),
        ({"step": "category_encoding", "num_tokens": 3}, [-1], "-1 is not a category"),
        ({"step": "category_encoding", "num_tokens": 3}, [0.5], "is not an integer"),
        ({"step": "integer_lookup", "vocabulary": [1]}, [1.5], "is not an integer"),
        ({"step": "string_lookup", "vocabulary": ["a"]}, [1], "is not text"),
        (
            {"step": "string_lookup", "vocabulary": ["a"], "num_oov_indices": 0},
            "b",
            "'b' is not in",
        ),
        ({"step": "text_vectorization", "vocabulary": ["a"]}, ["a", "b"], "2 texts instead of one"),
        ({"step": "text_vectorization", "vocabulary": ["a"]}, "\ud800", "not valid Unicode"),
        ({"step": "text_vectorization", "vocabulary": ["a"]}, b"\xff", "is not UTF-8"),
        (
            {"step": "pad_sequences", "maxlen": 2, "truncating": "error"},
            [1, 2, 3],
            "3 steps are mo",
        ),
        (
            {"step": "stft", "sequence_length": 4, "sequence_stride": 2, "fft_length": 8},
            [1, 2],
            "2",
        ),
        (
            {"step": "signal_stft", "frame_length": 4, "frame_step": 2},
            [1, 2],
            "fewer than one frame",
        ),
        ({"step": "log"}, [0], "logarithm of 0"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(table, value, message):
    front_end = from_document({"inputs": {"x": [table]}}, "frontend.json")
    with pytest.raises(SampleError, match=message):
        front_end.prepare("x", value)


def test_an_error_names_the_input_and_the_step():
    steps = [{"step": "rescaling", "scale": [1]}, {"step": "rescaling", "scale": [1, 2]}]
    front_end = from_document({"inputs": {"x": steps}}, "frontend.json")
    with pytest.raises(SampleError, match=r"^Input x, step 2 \(rescaling\): "):
        front_end.prepare("x", [1, 2, 3])


def test_the_document_is_json():
    assert json.loads(FULL.to_bytes())["inputs"]["text"][0]["vocabulary"] == ["é", "b"]
