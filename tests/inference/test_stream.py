"""``--input -``: each sample of a stream is run before the next is read."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from artifacts import dense, samples

from edgeattn.errors import ArtifactError, SampleError
from edgeattn.inference import run, stream
from edgeattn.inference.run import RunOptions, stream_bundle
from edgeattn.runners.isolated import IsolatedRunner
from edgeattn.tensors import TensorSpec


def streamed(bundle, data, **options):
    source = io.BufferedReader(io.BytesIO(data))
    return [
        result if isinstance(result, Exception) else result["score"]
        for result in stream_bundle(bundle.path, source, RunOptions(**options))
    ]


@pytest.mark.parametrize(
    "line", [b"1 2 3", b"1,2,3", b"1, 2,\t3\r", b"[1, 2, 3]", b'{"x": [1, 2, 3]}', b"1e0 2 3"]
)
def test_lines_of_text(dense_bundle, line):
    got = streamed(dense_bundle, line + b"\n-1 0 0.5\n")
    expected = dense(np.float32([[1, 2, 3], [-1, 0, 0.5]]))
    np.testing.assert_array_equal(np.concatenate(got), expected)


LONG = TensorSpec("ids", (1, 2), "int64")
UNSIGNED = TensorSpec("ids", (1, 2), "uint64")
# float64 has neither of these two numbers.
ODD, LARGE = 2**53 + 1, 2**63 - 1


@pytest.mark.parametrize(
    ("spec", "line", "expected"),
    [
        (LONG, f"{ODD} -{ODD}", [ODD, -ODD]),
        (LONG, f"[{LARGE}, 1.0]", [LARGE, 1]),
        (LONG, f'{{"ids": [{ODD}.0, 1e3]}}', [ODD, 1000]),
        (LONG, "1e18,+3", [10**18, 3]),
        (UNSIGNED, f"{2**64 - 1} {ODD}", [2**64 - 1, ODD]),
        (LONG, f"{2**63} -1", None),
        (LONG, f"[{LARGE}, 0.5]", None),
        (LONG, "[1e30, 1]", None),
        (UNSIGNED, f"{2**64} 1", None),
        (UNSIGNED, "-1 1", None),
    ],
)
def test_integers_are_exact(spec, line, expected):
    """They were read as float64, which rounds those above 2**53."""
    (sample,) = stream.read_stream(io.BufferedReader(io.BytesIO(line.encode())), [spec])
    if expected is None:
        assert f"input ids takes {spec.dtype} values" in str(sample)
    else:
        assert sample["ids"].dtype == spec.dtype
        assert sample["ids"].tolist() == [expected]


def test_arrays_of_one_or_more_samples(dense_bundle):
    x, data = samples(5), io.BytesIO()
    for part in (x[0], x[1:4], x[4].astype(np.float64)):
        np.save(data, part)
    got = streamed(dense_bundle, data.getvalue(), formats=("onnx",))
    np.testing.assert_array_equal(np.concatenate(got), dense(x))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1 2 3\n1 2\n", "Line 2 of the stream has the shape"),
        (b"1 2 3\n\n", "Line 2 of the stream cannot be read: it is empty"),
        (b" \t\r\n", "Line 1 of the stream cannot be read: it is empty"),
        (b"1 2 x\n", "Line 1 of the stream cannot be read: could not convert"),
        (b'{"y": [1]}\n', "Line 1 of the stream has no input 'x'"),
        (b'["a", "b", "c"]\n', "Line 1 of the stream contains values that are not numbers"),
        (b"[1, [2], 3]\n", "Line 1 of the stream cannot be read"),
        (b"\xff\xfe\n", "Line 1 of the stream cannot be read"),
        (b"[" * 100_000 + b"\n", "Line 1 of the stream cannot be read"),
        (b"[1, 2, " + b"9" * 5000 + b"]\n", "Line 1 of the stream cannot be read"),
        (b"[1, 2, " + b"9" * 400 + b"]\n", "Line 1 of the stream contains values that are not"),
        (b"nan 2 3\n", "Line 1: Input x has values that are NaN, infinite or beyond float32"),
        (b"1 2 inf\n", "Line 1: Input x has values that are NaN, infinite or beyond float32"),
        (b"[1, 2, -Infinity]\n", "Line 1: Input x has values that are NaN"),
        (b"[1, 2, 1e300]\n", "Line 1: Input x has values that are NaN"),
        (b"[1, 2, 1e999]\n", "Line 1: Input x has values that are NaN"),
    ],
)
def test_a_malformed_line_gives_an_error_and_the_stream_continues(dense_bundle, data, message):
    *before, error, last = streamed(dense_bundle, data + b"4 5 6\n")
    assert isinstance(error, SampleError)
    assert re.match(message, error.message)
    np.testing.assert_array_equal(last, dense(np.float32([[4, 5, 6]])))
    assert len(before) == data.count(b"\n") - 1


def test_a_line_that_is_too_long(dense_bundle, monkeypatch):
    monkeypatch.setattr(stream, "MAX_LINE", 16)
    # 16 bytes with the line break fit; of a line of 40, no part is taken for a line.
    data = b"1.00000 2.000 3\n" + b"1 2 3 " * 40 + b"\n4 5 6\n" + b"1 2 3 " * 9
    first, error, second, unfinished = streamed(dense_bundle, data)
    np.testing.assert_array_equal(first, dense(np.float32([[1, 2, 3]])))
    np.testing.assert_array_equal(second, dense(np.float32([[4, 5, 6]])))
    for item, number in ((error, 2), (unfinished, 4)):
        assert f"Line {number} of the stream cannot be read: it is longer" in item.message


def test_arrays_with_errors(dense_bundle):
    data = io.BytesIO()
    for array in ([1.0, 2, np.nan], [1.0, 2], [[1.0, 2, 3], [np.inf, 0, 0], [4, 5, 6]]):
        np.save(data, np.array(array))
    results = streamed(dense_bundle, data.getvalue() + b"\x93NUMPY\x01\x00" + b"1 2 3\n")
    assert [isinstance(result, SampleError) for result in results] == [1, 1, 0, 1, 0, 1]
    np.testing.assert_array_equal(results[2], dense(np.float32([[1, 2, 3]])))
    np.testing.assert_array_equal(results[4], dense(np.float32([[4, 5, 6]])))
    assert "Array 4 of the stream cannot be read" in results[5].message


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), ",  # an open bracket
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,)}" % 2**70,
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        b"{'descr': 7, 'fortran_order': False, 'shape': (3,)}",
        b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}",
        b"{" * 300,
        b"\xff\xfe",
    ],
)
def test_an_array_with_a_malformed_header_ends_the_stream(dense_bundle, header):
    """NumPy raises errors of the tokenizer, of integers and of dtypes."""
    good = io.BytesIO()
    np.save(good, np.float32([1, 2, 3]))
    bad = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(12)
    first, error = streamed(dense_bundle, good.getvalue() + bad)
    np.testing.assert_array_equal(first, dense(np.float32([[1, 2, 3]])))
    assert isinstance(error, SampleError)
    assert "Array 2 of the stream" in error.message


class Failing(IsolatedRunner):
    """Fails for samples that begin with 9, and ends its worker for those that begin with 10."""

    def run(self, tensors, batch_sizes=()):
        first = tensors["x"][0, 0]
        if first == 9:
            raise ArtifactError("The runtime refuses 9.")
        if first == 10:
            self._worker.close()
            self._lost = True
        return super().run(tensors, batch_sizes)


def test_the_stream_continues_unless_the_runtime_crashed(dense_bundle, monkeypatch):
    monkeypatch.setattr(run, "IsolatedRunner", Failing)
    results = streamed(dense_bundle, b"9 0 0\n1 2 3\n")
    assert results[0].message == "The runtime refuses 9."
    np.testing.assert_array_equal(results[1], dense(np.float32([[1, 2, 3]])))
    with pytest.raises(ArtifactError, match="crashed"):
        streamed(dense_bundle, b"10 0 0\n1 2 3\n")


def command_on(bundle, data, *options):
    process = subprocess.run(
        [sys.executable, "-P", "-m", "edgeattn", "run", bundle.path, "--input", "-", *options],
        input=data,
        capture_output=True,
        check=False,
    )
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    return process.returncode, lines, process.stderr.decode()


def test_the_command_prints_errors_as_lines(dense_bundle):
    code, (first, error, last), stderr = command_on(dense_bundle, b"1 2 3\n1 2\n4 5 6\n")
    assert (code, stderr) == (2, "")
    assert error["error"]["message"].startswith("Line 2 of the stream has the shape (2,).")
    assert error["error"].keys() == {"message", "hint", "exit_code"}
    assert error["error"]["exit_code"] == 2
    assert first == {"score": dense(np.float32([[1, 2, 3]]))[0].tolist()}
    assert last == {"score": dense(np.float32([[4, 5, 6]]))[0].tolist()}


def test_the_command_stops_on_request(dense_bundle, edgeattn):
    data = b"1 2 3\n1 2\n4 5 6\n"
    code, lines, stderr = command_on(dense_bundle, data, "--stop-on-error")
    assert (code, len(lines)) == (2, 1)
    assert "Line 2 of the stream has the shape (2,)." in stderr
    result = edgeattn("run", dense_bundle.path, "--input", "x.npy", "--stop-on-error")
    assert result.code == 2
    assert "requires --input -" in result.err


def test_the_command_accepts_nan_on_request(dense_bundle):
    code, lines, stderr = command_on(dense_bundle, b"nan 2 3\n", "--allow-non-finite")
    assert (code, lines, stderr) == (0, [{"score": ["nan", "nan"]}], "")


def test_an_array_of_objects_is_refused(dense_bundle):
    data = io.BytesIO()
    np.save(data, np.array([{}, 1, 2]), allow_pickle=True)
    (error,) = streamed(dense_bundle, data.getvalue())
    assert "cannot be read" in error.message


def test_an_empty_stream_is_an_error(dense_bundle):
    no_samples = io.BytesIO()
    np.save(no_samples, np.zeros((0, 3), "float32"))
    for data in (b"", no_samples.getvalue()):
        (error,) = streamed(dense_bundle, data)
        assert error.message == "The stream is empty."


def test_each_sample_is_run_before_the_next_is_read(dense_bundle):
    command = [sys.executable, "-P", "-m", "edgeattn", "run", dense_bundle.path, "--input", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        for row in samples(3):
            process.stdin.write(" ".join(map(str, row)) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == {"score": dense(row[None])[0].tolist()}
        process.stdin.close()
        assert process.wait() == 0


def test_a_stream_takes_no_output_file(edgeattn, dense_bundle):
    result = edgeattn("run", dense_bundle.path, "--input", "-", "-o", "x.npz")
    assert (result.code, result.out) == (2, "")
    assert "takes no --output" in result.err
