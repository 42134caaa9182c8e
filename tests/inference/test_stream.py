"""``--input -``: each sample of a stream is run before the next is read."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from artifacts import dense, samples

from edgeattn.errors import SampleError
from edgeattn.inference.run import stream_bundle


def streamed(bundle, data, **options):
    source = io.BufferedReader(io.BytesIO(data))
    return [outputs["score"] for outputs in stream_bundle(bundle.path, source, **options)]


@pytest.mark.parametrize(
    "line", [b"1 2 3", b"1,2,3", b"1, 2,\t3\r", b"[1, 2, 3]", b'{"x": [1, 2, 3]}', b"\n\n1e0 2 3"]
)
def test_lines_of_text(dense_bundle, line):
    got = streamed(dense_bundle, line + b"\n-1 0 0.5\n")
    expected = dense(np.float32([[1, 2, 3], [-1, 0, 0.5]]))
    np.testing.assert_array_equal(np.concatenate(got), expected)


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
        (b"1 2 x\n", "Line 1 of the stream cannot be read: could not convert"),
        (b'{"y": [1]}\n', "Line 1 of the stream has no input 'x'"),
        (b'["a", "b", "c"]\n', "Line 1 of the stream contains values that are not numbers"),
        (b"[1, [2], 3]\n", "Line 1 of the stream cannot be read"),
        (b"\xff\xfe\n", "Line 1 of the stream cannot be read"),
        (b"\x93NUMPY\x01\x00", "Array 1 of the stream cannot be read"),
    ],
)
def test_malformed_samples_are_located(dense_bundle, data, message):
    with pytest.raises(SampleError, match=message):
        streamed(dense_bundle, data)


def test_an_array_of_objects_is_refused(dense_bundle):
    data = io.BytesIO()
    np.save(data, np.array([{}, 1, 2]), allow_pickle=True)
    with pytest.raises(SampleError, match="cannot be read"):
        streamed(dense_bundle, data.getvalue())


def test_an_empty_stream(dense_bundle):
    assert streamed(dense_bundle, b"") == []


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
