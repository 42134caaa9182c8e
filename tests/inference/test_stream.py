"""``--input -``: samples as they come, each answered before the next."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from artifacts import dense, samples

from edgeattn.errors import SampleError
from edgeattn.inference.stream import stream_bundle


def streamed(bundle, data, **options):
    source = io.BufferedReader(io.BytesIO(data))
    return [told["score"] for told in stream_bundle(bundle.path, source, **options)]


@pytest.mark.parametrize(
    "line", [b"1 2 3", b"1,2,3", b"1, 2,\t3\r", b"[1, 2, 3]", b'{"x": [1, 2, 3]}', b"\n\n1e0 2 3"]
)
def test_lines(dense_bundle, line):
    got = streamed(dense_bundle, line + b"\n-1 0 0.5\n")
    want = dense(np.float32([[1, 2, 3], [-1, 0, 0.5]]))
    np.testing.assert_array_equal(np.concatenate(got), want)


def test_arrays_one_or_several_samples_each(dense_bundle):
    x, data = samples(5), io.BytesIO()
    for part in (x[0], x[1:4], x[4].astype(np.float64)):
        np.save(data, part)
    got = streamed(dense_bundle, data.getvalue(), formats=("onnx",))
    np.testing.assert_array_equal(np.concatenate(got), dense(x))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"1 2 3\n1 2\n", "line 2 of the stream has the shape"),
        (b"1 2 x\n", "In line 1 of the stream: could not convert"),
        (b'{"y": [1]}\n', "line 1 has no input 'x'"),
        (b'["a", "b", "c"]\n', "line 1 of the stream holds something that is no number"),
        (b"[1, [2], 3]\n", "In line 1 of the stream"),
        (b"\xff\xfe\n", "In line 1 of the stream"),
        (b"\x93NUMPY\x01\x00", "Array 1 of the stream cannot be read"),
    ],
)
def test_what_does_not_fit_is_named(dense_bundle, data, told):
    with pytest.raises(SampleError, match=told):
        streamed(dense_bundle, data)


def test_an_array_of_objects_is_refused(dense_bundle):
    data = io.BytesIO()
    np.save(data, np.array([{}, 1, 2]), allow_pickle=True)
    with pytest.raises(SampleError, match="cannot be read"):
        streamed(dense_bundle, data.getvalue())


def test_nothing_comes(dense_bundle):
    assert streamed(dense_bundle, b"") == []


def test_each_sample_is_answered_before_the_next_comes(dense_bundle):
    command = [sys.executable, "-P", "-m", "edgeattn", "run", dense_bundle.path, "--input", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        for row in samples(3):
            process.stdin.write(" ".join(map(str, row)) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == {"score": dense(row[None])[0].tolist()}
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def test_a_stream_takes_no_output_file(edgeattn, dense_bundle):
    told = edgeattn("run", dense_bundle.path, "--input", "-", "-o", "x.npz")
    assert (told.code, told.out) == (2, "")
    assert "takes no --output" in told.err
