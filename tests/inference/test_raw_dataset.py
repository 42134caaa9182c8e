"""Raw samples with labels: what a front end makes of them, and ``validate --raw-data``."""

import json
from dataclasses import replace

import numpy as np
import pytest
from artifacts import dense
from front_ends import LABELS, WINDOWS, add_front_end

from edgeattn.errors import SampleError
from edgeattn.frontend.answers import Answer
from edgeattn.frontend.description import FrontEnd
from edgeattn.frontend.lookup import StringLookup
from edgeattn.frontend.numeric import Rescaling
from edgeattn.frontend.text import TextVectorization
from edgeattn.frontend.windows import Window
from edgeattn.inference.raw import RawModel
from edgeattn.inference.raw_dataset import write_prepared
from edgeattn.inference.raw_samples import read_raw_samples
from edgeattn.samples.files import open_samples
from edgeattn.tensors import TensorSpec

WORDS = FrontEnd(
    {"words": (StringLookup(("a", "b")),)}, answer=Answer(labels=("low", "high", "high up"))
)
TEXT = (TensorSpec("words", (None, 2), "int32"),)
READINGS = FrontEnd({"r": (Rescaling((0.5,), (1.0,)),)}, Window(3))
NUMBERS = (TensorSpec("r", (None, 3), "float32"),)


def prepared(path, front_end, inputs):
    write_prepared(path, front_end, inputs, path.parent / "prepared.npz")
    with np.load(path.parent / "prepared.npz") as arrays:
        return {name: arrays[name].tolist() for name in arrays}


def test_lines_of_text_with_names_of_labels(tmp_path):
    lines = [{"x": ["b", "a"], "y": "high"}, {"words": ["zz", "b"], "y": 2}]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    # The first index after that of unknown words belongs to "a".
    expected = {"words": [[2, 1], [0, 2]], "y": [1, 2]}
    assert prepared(tmp_path / "data.jsonl", WORDS, TEXT) == expected


STORED = replace(WORDS, stored_inputs={"words": "sentence"})


def test_names_of_the_stored_inputs(tmp_path):
    """A user knows the names of the model's own inputs, ahead of the layers that were removed."""
    (tmp_path / "data.jsonl").write_text('{"sentence": ["b", "a"], "y": "high"}\n')
    np.savez(tmp_path / "data.npz", sentence=np.array([["b", "a"]]), y=[1])
    for name in ("data.jsonl", "data.npz"):
        write_prepared(tmp_path / name, STORED, TEXT, tmp_path / "prepared.npz")
        with np.load(tmp_path / "prepared.npz") as arrays:
            assert {key: arrays[key].tolist() for key in arrays} == {"words": [[2, 1]], "y": [1]}
    model = RawModel(STORED, TEXT, (), lambda inputs: inputs)
    assert model.prepare({"sentence": ["b", "a"]})["words"].tolist() == [[2, 1]]
    samples = read_raw_samples(tmp_path / "data.npz", STORED, TEXT)
    assert [item["words"].tolist() for item in samples] == [["b", "a"]]


def test_a_file_of_json_has_the_same_raw_samples_with_and_without_labels(tmp_path):
    lines = ('["b", "a"]', '{"x": ["b", "a"], "y": 1}', '{"sentence": ["b", "a"]}')
    (tmp_path / "data.jsonl").write_text("\n".join([*lines, '{"words": ["b", "a"]}']))
    samples = read_raw_samples(tmp_path / "data.jsonl", STORED, TEXT)
    assert [sample["words"] for sample in samples] == [["b", "a"]] * 4
    (tmp_path / "data.csv").write_text("text,label\nb,1\n")
    with pytest.raises(SampleError, match=r"A \.csv file has columns"):
        read_raw_samples(tmp_path / "data.csv", STORED, TEXT)


SENTENCES = FrontEnd(
    {
        "order": (TextVectorization(("a", "b"), output_sequence_length=2),),
        "known": (TextVectorization(("a", "b"), output_mode="multi_hot"),),
    },
    stored_inputs={"order": "sentence", "known": "sentence"},
)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("data.txt", "b a"),
        ("data.jsonl", '"b a"'),
        ("data.jsonl", '{"x": "b a", "y": 1}'),
        ("data.jsonl", '{"sentence": "b a", "y": 1}'),
    ],
)
def test_a_line_is_the_text_of_the_only_stored_input(name, line, tmp_path):
    """Two layers read it, and each is in place of an input of the converted model."""
    specs = (TensorSpec("order", (None, 2), "int64"), TensorSpec("known", (None, 3), "float32"))
    (tmp_path / name).write_text(line + "\n")
    (sample,) = read_raw_samples(tmp_path / name, SENTENCES, specs)
    assert (sample["order"], sample["known"]) == ("b a", "b a")
    # Indices 0 and 1 are those of padding and of unknown words; a vector has none for padding.
    expected = {"order": [[3, 2]], "known": [[0, 1, 1]]}
    model = RawModel(SENTENCES, specs, (), lambda inputs: inputs)
    for value in ("b a", sample, {"sentence": "b a"}):
        actual = {name: array.tolist() for name, array in model.prepare(value).items()}
        assert actual == expected
    if "y" in line:
        assert prepared(tmp_path / name, SENTENCES, specs) == {**expected, "y": [1]}


def test_one_stored_input_of_several_inputs():
    front_end = FrontEnd(stored_inputs={"one": "word", "two": "word"})
    renamed = front_end.by_input({"word": "dog", "code": 3, "y": 1}, ["one", "two", "code"])
    assert renamed == {"one": "dog", "two": "dog", "code": 3, "y": 1}
    # An input of the converted model may have the name of one of the stored model.
    assert front_end.by_input({"one": 1, "word": 2}, ["one"]) == {"one": 1, "word": 2}
    beside = FrontEnd(stored_inputs={"known": "code"})
    assert beside.by_input({"code": 3}, ["code", "known"]) == {"code": 3, "known": 3}


SEVERAL = (*TEXT, TensorSpec("code", (None, 1), "float32"))


@pytest.mark.parametrize(
    ("specs", "content", "message", "hint"),
    [
        # The first line was taken for names of columns.
        (SEVERAL, '{"words": ["a"\n', "data.jsonl: Line 1 of the stream", '{"words": ..., "code":'),
        (SEVERAL, "words,code\n", "data.jsonl: Line 1 of the stream", '{"words": ..., "code":'),
        (TEXT, "\n\n", "data.jsonl: Line 1 of the stream cannot be read: it is empty", "Correct"),
        (TEXT, "", "has no samples", "Write a sample per line"),
        (SEVERAL, '{"words": ["a"]}\n', "has no input 'code'", "words, code"),
    ],
)
def test_raw_samples_that_do_not_fit(specs, content, message, hint, tmp_path):
    (tmp_path / "data.jsonl").write_text(content)
    with pytest.raises(SampleError) as error:
        read_raw_samples(tmp_path / "data.jsonl", WORDS, specs)
    assert message in error.value.message
    assert hint in str(error.value.hint)


def test_readings_as_json_on_a_first_line_that_is_cut(tmp_path):
    (tmp_path / "data.jsonl").write_text("[1, 2\n[1, 2, 3]\n")
    with pytest.raises(SampleError, match="Line 1 of the stream"):
        read_raw_samples(tmp_path / "data.jsonl", FrontEnd(READINGS.inputs), NUMBERS)


@pytest.mark.parametrize("name", ["words", "x", "sentence"])
def test_text_is_no_prepared_input(name, tmp_path):
    np.savez(tmp_path / "data.npz", **{name: np.array([["a b"], ["b"]])})
    with pytest.raises(SampleError) as error:
        open_samples(tmp_path / "data.npz", TEXT)
    assert "--raw-data" in str(error.value.hint)


def test_labels_of_steps(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"x": ["b", "a"], "y": ["high", "low"]}\n')
    assert prepared(tmp_path / "data.jsonl", WORDS, TEXT)["y"] == [[1, 0]]


def test_windows_in_arrays(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.float32([[2, 4, 6], [0, 0, -2]]), y=[0, 1])
    expected = {"r": [[2, 3, 4], [1, 1, 0]], "y": [0, 1]}
    assert prepared(tmp_path / "data.npz", READINGS, NUMBERS) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"x": ["a", "b"], "y": "loud"}', "line 2: 'loud' is no label of the front end. Its labe"),
        ('{"y": 1}', "line 2: the sample has no input 'words'"),
        ('["a", "b"]', "line 2 is not a JSON object"),
        ('{"x": ["a"', "line 2 is not JSON"),
        ('{"x": ["a", "b"]}', "'y' is in 1 of 2 lines"),
        ('{"x": ["a", "b"], "y": [1]}', "the values of 'y' differ in length"),
        ('{"x": ["a", "b"], "y": null}', "'y' has values that are not numbers"),
        ('{"x": ["a"], "y": 1}', "data.jsonl, sample 2: "),
        ('{"x": {"a": 1}, "y": 1}', "data.jsonl, sample 2: "),
    ],
)
def test_lines_that_do_not_fit(tmp_path, line, message):
    path = tmp_path / "data.jsonl"
    path.write_text('{"x": ["b", "a"], "y": "high"}\n' + line + "\n")
    with pytest.raises(SampleError) as caught:
        write_prepared(path, WORDS, TEXT, tmp_path / "prepared.npz")
    assert message in caught.value.message
    assert not (tmp_path / "prepared.npz").exists()


@pytest.mark.parametrize(
    ("name", "message"), [("none.jsonl", "No such file"), ("data.txt", "is not a raw dataset")]
)
def test_files_that_are_no_dataset(tmp_path, name, message):
    (tmp_path / "data.txt").write_text("a\n")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(SampleError, match=message):
        write_prepared(tmp_path / name, WORDS, TEXT, tmp_path / "prepared.npz")
    with pytest.raises(SampleError, match="has no samples"):
        write_prepared(tmp_path / "empty.jsonl", WORDS, TEXT, tmp_path / "prepared.npz")


@pytest.fixture
def windows(dense_bundle, tmp_path):
    """The dense model, which gets halves of readings, and its labels for 300 windows."""
    add_front_end(dense_bundle, WINDOWS)
    readings = np.random.default_rng(3).normal(size=(300, 3)).round(3)
    labels = dense(np.float32(readings) / 2).argmax(1)
    lines = (
        json.dumps({"x": row.tolist(), "y": LABELS[label]}) + "\n"
        for row, label in zip(readings, labels, strict=True)
    )
    (tmp_path / "data.jsonl").write_text("".join(lines))
    return dense_bundle


def test_validate(windows, edgeattn):
    result = edgeattn("validate", "dense.edge", "--raw-data", "data.jsonl", "--json")
    assert result.code == 0, result.out
    # The first artifact is the reference of the other.
    assert result.document["artifacts"][1]["stages"]["task"] == "pass"
    assert "the front end was not compared with the original preprocessing" in result.out
    for arguments, message in (
        (("--raw-data", "data.jsonl", "--data", "data.jsonl"), "exclude each other"),
        (("--raw-data", "none.jsonl"), "No such file"),
    ):
        refused = edgeattn("validate", "dense.edge", *arguments)
        assert refused.code == 2
        assert message in refused.err


def test_a_bundle_without_a_front_end(dense_bundle, edgeattn, tmp_path):
    (tmp_path / "data.jsonl").write_text('{"x": [1, 2, 3], "y": 1}\n')
    refused = edgeattn("validate", "dense.edge", "--raw-data", "data.jsonl")
    assert refused.code == 2
    assert "dense.edge has no front end" in refused.err
