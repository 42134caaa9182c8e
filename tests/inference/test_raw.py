"""Raw input in, answers out: ``run --stream`` and ``Model.answers``, on the dense model."""

import io
import json
import struct
import wave
from dataclasses import replace

import numpy as np
import pytest
from artifacts import dense, edit_manifest, write_dense_bundle

import edgeattn
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import sha256
from edgeattn.bundle.packing import pack
from edgeattn.errors import BundleError, SampleError
from edgeattn.frontend.answers import Answer
from edgeattn.frontend.description import FRONTEND, FrontEnd
from edgeattn.frontend.lookup import Hashing, IntegerLookup, StringLookup
from edgeattn.frontend.numeric import Normalization, PadSequences, Rescaling
from edgeattn.frontend.text import TextVectorization
from edgeattn.frontend.windows import Window
from edgeattn.inference.raw import RawModel
from edgeattn.inference.raw_samples import read_raw_samples
from edgeattn.inference.raw_stream import read_raw, read_raw_blocks
from edgeattn.inference.run import stream_raw
from edgeattn.tensors import TensorSpec

LABELS = Answer(labels=("low", "high"))
# Three readings make a sample of the dense model, and the next window starts one later.
WINDOWS = FrontEnd({"x": (Rescaling((0.5,)),)}, Window(3, hop=1), LABELS)
COUNTS = FrontEnd(
    {"x": (StringLookup(("a", "b"), output_mode="count"),)},
    answer=Answer(kind="regression", output="score"),
)
NUMBERS = (TensorSpec("x", (None, 3), "float32"),)


def add_front_end(bundle, front_end):
    """Store ``front_end`` in the bundle, as ``convert`` does."""
    path = bundle.path / FRONTEND
    path.write_bytes(front_end.to_bytes())
    entry = {"path": FRONTEND, "sha256": sha256(path)}
    edit_manifest(bundle.path, lambda data: data.update(frontend=entry))


def expected(window):
    """The answer of the dense model to a window of three readings, by NumPy."""
    scores = dense(np.float32([window]) / 2)[0]
    return {"label": LABELS.labels[scores.argmax()], "score": float(scores.max())}


@pytest.fixture(params=["tflite", "onnx"])
def bundle(request, tmp_path):
    return write_dense_bundle(tmp_path / "dense.edge", formats=(request.param,))


@pytest.fixture
def tflite_dense(tmp_path):
    return write_dense_bundle(tmp_path / "dense.edge", formats=("tflite",))


def replace_step(front_end, **settings):
    """``front_end`` with other settings of its only step."""
    ((name, (step,)),) = front_end.inputs.items()
    return replace(front_end, inputs={name: (replace(step, **settings),)})


def test_windows_of_readings(bundle):
    add_front_end(bundle, WINDOWS)
    readings = [1.0, 2.0, -3.0, 0.5, 4.0]
    model = edgeattn.load(bundle.path)
    answers = list(model.answers(readings))
    assert answers == [expected(readings[start : start + 3]) for start in range(3)]
    assert list(model.answers([np.array(readings)])) == answers
    assert model.answer(readings[:3]) == answers[0]


def test_text(bundle):
    add_front_end(bundle, COUNTS)
    model = edgeattn.load(bundle.path)
    # Counts of unknown words, of "a" and of "b".
    values = dense(np.float32([[1, 2, 0]]))[0].tolist()
    assert model.answer(["a", "c", "a"]) == {"value": values}


PADDED = FrontEnd({"x": (PadSequences(3, padding="post"), Rescaling((1.0,)))}, answer=LABELS)
SENTENCES = FrontEnd({"x": (TextVectorization(("a", "b"), output_sequence_length=3),)})


@pytest.mark.parametrize(
    ("front_end", "empty", "other"),
    [
        (SENTENCES, ["", " ", "\t\u2003", "!?", "\u202f!", b"", "...  '"], "a b"),
        # Unknown words are words, as in training.
        (SENTENCES, [""], "zebra"),
        (replace_step(SENTENCES, split="character"), ["", "  "], "ab"),
        (replace_step(SENTENCES, split="none"), [[], "", ["", " "], "!"], ["a", "", "b"]),
        (replace_step(SENTENCES, ngrams=(2,)), ["", "a"], "a b"),
        (COUNTS, [[], "", ["", " "]], ["a", ""]),
        (FrontEnd({"x": (StringLookup(("", "a"), output_mode="count"),)}), [[], " "], ""),
        (PADDED, [[], np.zeros((0, 3))], [1.0]),
        (FrontEnd(), [[]], [1.0, 2.0, 3.0]),
    ],
)
def test_an_empty_sample_is_an_error(front_end, empty, other):
    """Steps would fill it up, and the model would answer to padding."""
    spec = TensorSpec("x", (None, 3), "float32")
    if isinstance(next(iter(front_end.inputs.get("x", ())), None), TextVectorization):
        spec = TensorSpec("x", (None, 3), "int64")
    calls = []

    def run(inputs):
        calls.append(inputs)
        return {"score": np.zeros((1, 2))}

    model = RawModel(front_end, (spec,), (), run)
    for value in empty:
        with pytest.raises(SampleError, match="The sample is empty: x has no word and no number"):
            model.answer(value)
        with pytest.raises(SampleError, match="The sample is empty"):
            model.answer({"x": value})
    *errors, answer = model.answers([*empty, other])
    assert all("The sample is empty" in error.message for error in errors)
    assert not isinstance(answer, SampleError)
    assert len(calls) == 1


def test_one_empty_input_of_several():
    specs = (*NUMBERS, TensorSpec("z", (None, 3), "int64"))
    front_end = FrontEnd({"x": PADDED.inputs["x"], "z": SENTENCES.inputs["x"]})
    model = RawModel(front_end, specs, (), lambda inputs: inputs)
    assert model.answer({"x": [1], "z": ""}) == {"x": [1, 0, 0], "z": [0, 0, 0]}
    with pytest.raises(SampleError, match="x and z have no word"):
        model.answer({"x": [], "z": " "})


@pytest.mark.parametrize(
    ("front_end", "data", "pcm", "message"),
    [
        (COUNTS, b"", False, "The stream is empty"),
        (WINDOWS, b"", False, "The stream is empty"),
        (WINDOWS, b"reading\n", False, "The stream is empty"),
        (WINDOWS, b"1\n2\n", False, "The stream has 2 readings, and a window has 3"),
        (WINDOWS, b"nan\n", False, "not finite"),
        (WINDOWS, b"\n", False, "Line 1 of the stream cannot be read: it is empty"),
        (WINDOWS, b"", True, "The stream is empty"),
        (WINDOWS, b"\0\0\0\0", True, "The stream has 2 readings"),
        (WINDOWS, "wav", False, "The stream is empty"),
    ],
)
def test_a_stream_without_an_answer_is_an_error(tflite_dense, front_end, data, pcm, message):
    add_front_end(tflite_dense, front_end)
    data = wav(b"") if data == "wav" else data
    (error,) = stream_raw(tflite_dense.path, io.BufferedReader(io.BytesIO(data)), pcm=pcm)
    assert isinstance(error, SampleError)
    assert message in error.message


def test_an_error_in_a_stream_of_readings_restarts_the_window(bundle):
    add_front_end(bundle, WINDOWS)
    values = [1.0, 2.0, float("nan"), 3.0, 4.0, "five", 5.0, 6.0, 7.0]
    *errors, answer = edgeattn.load(bundle.path).answers(values)
    assert [error.message.split(":")[0] for error in errors] == [
        "Value 3 of the stream",
        "Value 6 of the stream",
    ]
    assert answer == expected([5.0, 6.0, 7.0])


def test_a_bundle_without_a_front_end(bundle, edgeattn):
    import edgeattn as package

    with pytest.raises(BundleError, match="has no front end"):
        package.load(bundle.path).answer([1, 2, 3])
    result = edgeattn("run", bundle.path, "--input", "-", "--stream")
    assert result.code == 2
    assert "has no front end" in result.err
    assert "--preprocess" in result.err


def test_run_stream_of_lines(bundle, edgeattn, tmp_path):
    add_front_end(bundle, WINDOWS)
    (tmp_path / "a.csv").write_text("reading\n1\n2\n3\n\n4\nx\n5\n6\n7\n8\n")
    result = edgeattn("run", bundle.path, "--input", "a.csv", "--stream")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert lines[0] == expected([1, 2, 3])
    assert "Line 5 of the stream cannot be read: it is empty" in lines[1]["error"]["message"]
    assert "Line 7 of the stream cannot be read: could not" in lines[2]["error"]["message"]
    assert lines[3:] == [expected([5, 6, 7]), expected([6, 7, 8])]
    assert result.code == 2


def test_run_stream_stops_on_an_error(bundle, edgeattn, tmp_path):
    add_front_end(bundle, WINDOWS)
    (tmp_path / "a.csv").write_text("1\nx\n5\n6\n7\n")
    result = edgeattn("run", bundle.path, "--input", "a.csv", "--stream", "--stop-on-error")
    assert (result.code, result.out) == (2, "")
    assert "Line 2 of the stream" in result.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--pcm",), "--pcm requires --stream"),
        (("--stream", "-o", "b.npz"), "--stream prints to stdout"),
        (("--stop-on-error",), "--stop-on-error requires"),
    ],
)
def test_options_without_effect(dense_bundle, edgeattn, options, message):
    result = edgeattn("run", dense_bundle.path, "--input", "a.csv", *options)
    assert result.code == 2
    assert message in result.err


def test_a_changed_front_end_is_refused(bundle):
    add_front_end(bundle, WINDOWS)
    (bundle.path / FRONTEND).write_bytes(COUNTS.to_bytes())
    with pytest.raises(BundleError, match=r"frontend\.json has changed"):
        edgeattn.load(bundle.path)


def test_a_malformed_front_end_is_refused(bundle):
    add_front_end(bundle, WINDOWS)
    (bundle.path / FRONTEND).write_text('{"version": 1, "inputs": {"x": [{"step": "exec"}]}}')
    digest = sha256(bundle.path / FRONTEND)
    edit_manifest(bundle.path, lambda data: data["frontend"].update(sha256=digest))
    with pytest.raises(BundleError, match="unknown step 'exec'"):
        edgeattn.load(bundle.path)


def raw(front_end, data, specs=NUMBERS, **options):
    return list(read_raw(io.BufferedReader(io.BytesIO(data)), front_end, specs, **options))


@pytest.mark.parametrize(
    ("line", "values"),
    [
        (b"1 2 3", [1, 2, 3]),
        (b"1,,3", [1, np.nan, 3]),
        (b"nan, 2,3\r", [np.nan, 2, 3]),
        (b"[1, null, 3]", [1, np.nan, 3]),
        (b"[[1, 2], [3, 4]]", [[1, 2], [3, 4]]),
        (b"2.5", 2.5),
    ],
)
def test_lines_of_numbers(line, values):
    (value,) = raw(WINDOWS, line + b"\n")
    np.testing.assert_array_equal(value, values)


def test_lines_of_text():
    assert raw(COUNTS, b" [a] b, \xc3\xa9\r\nc") == [" [a] b, é", "c"]
    good, error = raw(COUNTS, b"a\n\xff\n")
    assert (good, type(error)) == ("a", SampleError)


@pytest.mark.parametrize(
    ("front_end", "line", "value"),
    [
        # As a line of text, braces and quotes would be words and characters.
        (COUNTS, '"a \\u00e9"', "a é"),
        (COUNTS, ' {"x": "a", "y": 1}', {"x": "a", "y": 1}),
        (COUNTS, '["a", "b"]', ["a", "b"]),
        (FrontEnd(), "[1, null]", [1, np.nan]),
        (FrontEnd(), "2.5", 2.5),
    ],
)
def test_lines_of_a_file_of_json(front_end, line, value):
    for suffix in (".jsonl", ".JSON", ".ndjson"):
        (got,) = raw(front_end, line.encode(), suffix=suffix)
        np.testing.assert_equal(got.tolist() if isinstance(got, np.ndarray) else got, value)


@pytest.mark.parametrize(
    ("front_end", "line"),
    [
        (COUNTS, "a b"),
        (COUNTS, '"a" "b"'),
        (FrontEnd(), "names"),
        (FrontEnd(), "1,2,3"),
        (WINDOWS, "01"),
        (WINDOWS, '{"x": 1}'),
    ],
)
def test_lines_of_a_file_of_json_that_do_not_fit(front_end, line):
    (error,) = raw(front_end, line.encode(), suffix=".jsonl")
    assert "Line 1 of the stream cannot be read" in error.message


HASHES = FrontEnd({"x": (Hashing(50),)})
INTEGERS = FrontEnd({"x": (IntegerLookup((2**53 + 1,)),)})


@pytest.mark.parametrize(
    ("front_end", "line", "value"),
    [
        # Rounded to float64, it would be another integer.
        *((front_end, b"9007199254740993", 2**53 + 1) for front_end in (HASHES, INTEGERS)),
        *((front_end, b"[9007199254740993]", [2**53 + 1]) for front_end in (HASHES, INTEGERS)),
        (HASHES, b"3, -4", [3, -4]),
        (HASHES, b'["01234"]', ["01234"]),
        (HASHES, b'{"x": "01234"}', {"x": "01234"}),
        (INTEGERS, b"3.0, 007", [3, 7]),
    ],
)
def test_values_of_lookups_and_hashes(front_end, line, value):
    (got,) = raw(front_end, line)
    assert (got.tolist() if isinstance(got, np.ndarray) else got) == value


@pytest.mark.parametrize("line", [b"01234", b"blue", b"1.5", b"+3", b"1,", b"3 b"])
def test_a_hashed_line_that_may_be_text_or_numbers(line):
    """In Keras, "01234" and 1234 differ: they have the bins 28 and 22 of 50."""
    (error,) = raw(HASHES, line + b"\n")
    assert "Line 1 of the stream cannot be read: it may be text or numbers" in error.message
    assert '{"x": "word"}' in error.hint
    model = RawModel(HASHES, (TensorSpec("x", (None, 1), "int64"),), (), lambda inputs: inputs)
    assert [model.answer([value]) for value in ("01234", "1234", 1234)] == [
        {"x": [28]},
        {"x": [22]},
        {"x": [22]},
    ]


@pytest.mark.parametrize("front_end", [COUNTS, FrontEnd()])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".npz", ".npy"])
def test_files_without_lines_of_raw_values(front_end, suffix):
    """A line with a text and its label is not the text. Numbers have columns."""
    if front_end == COUNTS or suffix[:2] == ".n":
        with pytest.raises(SampleError, match=rf"A {suffix} file has"):
            raw(front_end, b"text,label\n1,2\n", suffix=suffix)
    else:
        (value,) = raw(front_end, b"text,label\n1,2\n", suffix=suffix)
        assert value.tolist() == [1, 2]


def test_run_stream_of_a_file_of_json(bundle, edgeattn, tmp_path):
    add_front_end(bundle, COUNTS)
    lines = '["a", "c", "a"]\n{"x": ["a", "c", "a"], "y": 1}\n{"z": ["a"]}\na c a\n'
    (tmp_path / "a.jsonl").write_text(lines)
    result = edgeattn("run", bundle.path, "--input", "a.jsonl", "--stream")
    *answers, name, text = [json.loads(line) for line in result.out.splitlines()]
    # Counts of unknown words, of "a" and of "b".
    assert answers == [{"value": dense(np.float32([[1, 2, 0]]))[0].tolist()}] * 2
    assert "The sample has no input 'x'" in name["error"]["message"]
    assert "Line 4 of the stream cannot be read" in text["error"]["message"]
    assert result.code == 2


@pytest.mark.parametrize(
    ("front_end", "data", "values"),
    [
        (COUNTS, "a\nb", ["a", "b"]),
        (FrontEnd(), "1\n2\n", [1, 2]),
        (FrontEnd(), "reading\n2\n", [2]),
        (FrontEnd({}, Window(2)), "1\n2\n", [1, 2]),
    ],
)
def test_a_byte_order_mark_is_no_part_of_the_first_line(front_end, data, values):
    """The first number was taken for the name of a column."""
    assert raw(front_end, data.encode("utf-8-sig")) == values


def test_several_inputs():
    specs = (*NUMBERS, TensorSpec("z", (None, 1), "float32"))
    first, error = raw(FrontEnd(), b'{"x": [1, 2, 3], "z": "a"}\n[1]\n', specs)
    assert first == {"x": [1, 2, 3], "z": "a"}
    assert "not a JSON object" in error.message


class Pipe(io.RawIOBase):
    """A source from which data arrive in parts."""

    def __init__(self, parts):
        self.parts = list(parts)

    def readable(self):
        return True

    def readinto(self, buffer):
        part = self.parts.pop(0) if self.parts else b""
        buffer[: len(part)] = part
        return len(part)


# Lines that are read together, and between them some that are read alone.
MIXED = (
    b"names\n1,2\n 3 4\n5, 6\r\n\n7,8\n1,,\nnan,3\n9;1\n1e2,-3\n[5, 6]\n1,2,3\n"
    b"\xff\n4 5\n1_0,inf\n2,3\n8 9\n6,7"
)


@pytest.mark.parametrize("missing", ["error", "previous"])
@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_answers_do_not_depend_on_the_parts_in_which_lines_arrive(missing, size):
    """Compared with the answers to the values of each line, one by one."""
    window = Window(2, hop=1, columns=2, missing=missing)
    front_end = FrontEnd({"x": ()}, window, None)
    specs = (TensorSpec("x", (None, 2, 2), "float32"),)

    def model(batch):
        return RawModel(front_end, specs, (), lambda inputs: inputs, batch=batch)

    def plain(items):
        return [str(item) if isinstance(item, SampleError) else item for item in items]

    alone = FrontEnd({"x": ()}, Window(2, hop=1, columns=None, missing=missing), None)
    values = raw(alone, MIXED, specs)
    parts = [MIXED[start : start + size] for start in range(0, len(MIXED), size)]
    blocks = read_raw_blocks(io.BufferedReader(Pipe(parts)), front_end, specs)
    expected = plain(model(1).answers(values))
    assert plain(model(4).answers_to_blocks(blocks)) == expected
    assert sum(isinstance(item, dict) for item in expected) > 3


@pytest.mark.parametrize("data", [b"1,2\n3, 4\n", b"1 2\n3 4\n"])
def test_lines_that_arrive_together_are_read_together(data):
    front_end = FrontEnd({"x": ()}, Window(2, columns=2))
    (block,) = read_raw_blocks(io.BufferedReader(io.BytesIO(data)), front_end, NUMBERS)
    np.testing.assert_array_equal(block, [[[1, 2], [3, 4]]])


def test_a_line_is_read_when_it_has_arrived():
    parts = [b"1,2\n3", b",4\n5,6", b"\n"]
    front_end = FrontEnd({"x": ()}, Window(1, columns=2))
    blocks = read_raw_blocks(io.BufferedReader(Pipe(parts)), front_end, NUMBERS)
    assert [[value.tolist() for value in block] for block in blocks] == [
        [[[1, 2]]],
        [[[3, 4]]],
        [[[5, 6]]],
    ]


def test_a_sample_that_fails_in_a_batch_fails_alone(bundle):
    add_front_end(bundle, FrontEnd({"x": ()}, answer=LABELS))
    largest = float(np.finfo("float32").max)
    lines = "".join(f"{value},1,1\n" for value in (1, 2, largest, 3))
    answers = list(stream_raw(bundle.path, io.BufferedReader(io.BytesIO(lines.encode()))))
    assert [isinstance(item, dict) for item in answers] == [True, True, False, True]
    assert "not finite" in answers[2].message or "infinite" in answers[2].message


def wav(values, rate=8000, width=2, channels=1):
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(width)
        sound.setframerate(rate)
        sound.writeframes(values)
    return file.getvalue()


SOUND = FrontEnd(window=Window(4, sampling_rate=8000))
PCM = struct.pack("<5h", 0, 16384, -32768, 1, 32767)
VALUES = [0, 0.5, -1, 1 / 32768, 32767 / 32768]


def test_sound():
    np.testing.assert_array_equal(np.concatenate(raw(SOUND, wav(PCM))), VALUES)
    np.testing.assert_array_equal(np.concatenate(raw(SOUND, PCM, pcm=True)), VALUES)
    stereo = FrontEnd(window=Window(4, columns=2))
    (frames,) = raw(stereo, wav(PCM[:8], channels=2))
    np.testing.assert_array_equal(frames, [VALUES[:2], VALUES[2:4]])


@pytest.mark.parametrize(
    ("data", "pcm", "message"),
    [
        (wav(PCM, rate=44100), False, "44100 samples per second; the model takes 8000"),
        (wav(PCM, width=1), False, "8 bits per value"),
        (wav(PCM, channels=2, width=2), False, "2 channels; the model takes 1"),
        (b"RIFF", False, "cannot be read"),
        (PCM[:-1], True, "ends with 1 of the 2 bytes"),
        (wav(PCM)[:-1], False, "ends with 1 of the 2 bytes"),
    ],
)
def test_sound_that_does_not_fit(data, pcm, message):
    with pytest.raises(SampleError, match=message):
        raw(SOUND, data, pcm=pcm)


def test_normalization_of_rows(bundle):
    normalization = Normalization((1.0, 2.0, 3.0), (4.0, 4.0, 4.0))
    add_front_end(bundle, FrontEnd({"x": (normalization,)}, answer=Answer()))
    scores = dense(np.float32([[0, 1, -1]]))[0]
    assert edgeattn.load(bundle.path).answer([1, 4, 1]) == {
        "label": int(scores.argmax()),
        "score": float(scores.max()),
    }


def test_a_packed_bundle_has_its_front_end(bundle, tmp_path, monkeypatch):
    add_front_end(bundle, WINDOWS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pack(Bundle.open(bundle.path), tmp_path / "dense.edge.zip")
    model = edgeattn.load(tmp_path / "dense.edge.zip")
    assert model.answer([1.0, 2.0, -3.0]) == expected([1.0, 2.0, -3.0])


def test_raw_samples_in_arrays(tmp_path):
    """An array that nothing reads is an error, because it may be a misspelled one."""
    specs, path = (TensorSpec("a", (1, 2), "float32"),), tmp_path / "raw.npz"
    x = np.float32([[1, 2], [3, 4], [5, 6]])
    for name in ("x", "a"):
        np.savez(path, **{name: x, "y": [0, 1, 0], "y/out": [0, 1, 0]})
        samples = read_raw_samples(path, FrontEnd(), specs)
        assert [sample["a"].tolist() for sample in samples] == x.tolist()
    for arrays, unused in (
        ({"x": x, "labels": ["no", "yes"]}, "'labels'"),
        ({"x": x, "a": x}, "'x'"),
        ({"x": x, "state": x, "year": x}, "'state', 'year'"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(SampleError, match=f"arrays that nothing uses: {unused}") as caught:
            read_raw_samples(path, FrontEnd(), specs)
        assert "--labels FILE" in str(caught.value.hint)
