"""Calls into a child process: what crosses the pipe, and what is told when the child dies."""

import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import types
from pathlib import Path

import called  # noqa: F401  what the child calls
import numpy as np
import pytest

from edgeattn import errors, progress
from edgeattn.process.protocol import MAX_HEADER, read_message, write_message
from edgeattn.process.worker import Worker, WorkerDied

DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]


HERE = str(Path(__file__).parents[1])


def alive(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def framed(header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_every_dtype_come_back(child, dtype):
    sent = {
        "matrix": np.arange(2 * 3 * 5).reshape(2, 3, 5).astype(dtype),
        "scalar": np.array(1).astype(dtype),
        "empty": np.zeros((0, 7), dtype),
        "strided": np.arange(30).reshape(5, 6).astype(dtype)[::2, ::-3],
        "transposed": np.arange(6).reshape(2, 3).astype(dtype).T,
        "big endian": np.arange(5).astype(np.dtype(dtype).newbyteorder(">")),
    }
    result, got = child.call("called:echo", {"kept": [1, None, "ü", 0.1]}, sent)
    assert result == {"kept": [1, None, "ü", 0.1]}
    assert list(got) == list(sent)
    for name, array in sent.items():
        assert got[name].shape == array.shape, name
        assert got[name].dtype == array.dtype.newbyteorder("<"), name
        np.testing.assert_array_equal(got[name], array)
        got[name][...] = 0  # the receiver's own


def test_what_the_child_gets(child):
    sent = {"a": np.float32(2.5), "b": np.ones((1, 0, 3), ">i2")}
    result, _ = child.call("called:kinds", {}, sent)
    assert result == {"a": ["<f4", []], "b": ["<i2", [1, 0, 3]]}


def test_not_a_number_and_infinity_come_back(child):
    sent = np.array([np.nan, np.inf, -np.inf, -0.0])
    _, got = child.call("called:echo", {}, {"x": sent})
    assert got["x"].tobytes() == sent.tobytes()


@pytest.mark.parametrize("array", [np.array([object()]), np.array(["text"]), np.zeros(2, "V3")])
def test_what_is_no_number_is_refused_before_it_is_sent(child, array):
    before, _ = child.call("called:process_id")
    with pytest.raises(TypeError, match="no number"):
        child.call("called:echo", {}, {"x": array})
    assert child.call("called:process_id")[0] == before


def test_one_process_answers_many_calls(child):
    assert child.call("called:process_id") == child.call("called:process_id")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_death_by_signal_is_named_and_the_next_call_gets_a_new_process(child, number):
    with pytest.raises(WorkerDied, match=f"died of {number.name}") as told:
        child.call("called:kill", {"number": int(number)})
    assert "last words" in told.value.output
    assert child.call("called:echo", {"a": 1})[0] == {"a": 1}


@pytest.mark.parametrize("status", [0, 3])
def test_exit_is_told(child, status):
    with pytest.raises(WorkerDied, match=f"exit status {status}"):
        child.call("called:leave", {"status": status})


def test_timeout(child):
    process_id, _ = child.call("called:process_id")
    start = time.monotonic()
    with pytest.raises(WorkerDied, match=r"longer than 0\.2 s"):
        child.call("called:sleep", {"seconds": 30}, timeout=0.2)
    assert time.monotonic() - start < 5
    assert not alive(process_id)
    assert child.call("called:echo", {"a": 1}, timeout=30)[0] == {"a": 1}


def test_timeout_that_was_not_needed_harms_nothing(child):
    process_id, _ = child.call("called:process_id", timeout=0.5)
    time.sleep(0.7)
    assert child.call("called:process_id")[0] == process_id


@pytest.mark.parametrize(
    ("kind", "code"), [("SampleError", 2), ("ArtifactError", 5), ("UnsafeModelError", 4)]
)
def test_errors_arrive_as_they_were_raised(child, kind, code):
    with pytest.raises(errors.EdgeattnError) as told:
        child.call("called:refuse", {"kind": kind})
    assert type(told.value) is getattr(errors, kind)
    assert (told.value.message, told.value.hint) == ("expected this, came that", "try this")
    assert told.value.exit_code == code
    assert child.call("called:echo", {"a": 1})[0] == {"a": 1}


def test_a_fault_arrives_with_where_it_came_from(child):
    with pytest.raises(errors.EdgeattnError, match="ZeroDivisionError: by nothing") as told:
        child.call("called:stumble")
    assert told.value.exit_code == 70
    assert "in stumble" in "".join(told.value.__notes__)


@pytest.mark.parametrize("function", ["no_such_module:f", "called:no_such_function", "nonsense"])
def test_no_such_function(child, function):
    with pytest.raises(errors.EdgeattnError, match=r"(ModuleNotFound|Attribute)Error"):
        child.call(function)


def test_out_of_memory_is_no_fault_of_ours(child):
    with pytest.raises(errors.UnsupportedModelError, match="memory"):
        child.call("called:run_out_of_memory")


@pytest.mark.parametrize("function", ["return_a_set", "return_objects"])
def test_a_result_that_cannot_be_sent_is_told_and_kills_nothing(child, function):
    process_id, _ = child.call("called:process_id")
    with pytest.raises(errors.EdgeattnError, match="TypeError"):
        child.call(f"called:{function}")
    assert child.call("called:process_id")[0] == process_id


def test_a_pair_without_arrays_is_a_result(child):
    assert child.call("called:return_a_pair")[0] == [1, 2]


def test_prints_are_no_answers(child):
    assert child.call("called:print_a_lot")[0] == "heard"


def test_requests_are_not_read_by_what_is_called(child):
    assert child.call("called:read_standard_input")[0] == ""
    assert child.call("called:echo", {"a": 1})[0] == {"a": 1}


def test_progress():
    heard = []
    environment = {"PYTHONPATH": HERE}
    with progress.shown_by(heard.append), Worker(environment=environment) as child:
        child.call("called:report_progress", {"steps": ["a", "b"]})
    assert heard == ["a", "b"]


def test_interrupted_call_ends_the_child(child):
    def interrupt(_):
        raise KeyboardInterrupt

    process_id, _ = child.call("called:process_id")
    with pytest.raises(KeyboardInterrupt), progress.shown_by(interrupt):
        child.call("called:report_progress", {"steps": ["a"]})
    assert not alive(process_id)


def test_what_lies_in_the_current_folder_is_not_imported(tmp_path, monkeypatch, child):
    for name in ("json", "numpy", "struct"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken over')\n")
    monkeypatch.chdir(tmp_path)
    assert child.call("called:echo", {"a": 1})[0] == {"a": 1}


def test_no_such_interpreter():
    with Worker(command=["/no/such/python"]) as child, pytest.raises(WorkerDied, match="started"):
        child.call("called:echo")


@pytest.mark.parametrize(
    "said",
    [
        b"Welcome to this machine!\n",
        struct.pack("<Q", MAX_HEADER + 1) + b"x" * 100,
        framed(b"no json"),
        framed(b"\xff\xfe"),
        framed([1, 2]),
        framed({"result": 1}),  # without its list of arrays
        framed({"arrays": 7}),
        framed({"arrays": [{"name": "x"}]}),
        framed({"arrays": [{"name": "x", "dtype": "nonsense", "shape": [1]}]}),
        framed({"arrays": [{"name": "x", "dtype": "|O", "shape": [1]}]}, b"x" * 8),
        framed({"arrays": [{"name": "x", "dtype": "<f4", "shape": [-1, -4]}]}, b"x" * 16),
        framed({"arrays": [{"name": "x", "dtype": "<f4", "shape": [2**62, 4]}]}),
        framed({"arrays": [{"name": "x", "dtype": "<f4", "shape": [2**40]}]}),
        framed(b"[" * 100_000),
    ],
)
def test_garbage_is_no_answer(said):
    script = (
        f"import sys,time; sys.stdout.buffer.write({said!r}); sys.stdout.flush(); time.sleep(9)"
    )
    start = time.monotonic()
    with Worker(command=[sys.executable, "-c", script]) as child, pytest.raises(WorkerDied) as told:
        child.call("called:echo")
    assert str(told.value) == "answered with something that is no answer"
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"1234",
        framed({"arrays": []})[:-1],
        # Announces 4 GiB, of which it sends nothing.
        framed({"arrays": [{"name": "x", "dtype": "<f4", "shape": [2**30]}]}),
    ],
)
def test_half_an_answer_is_a_death(said):
    script = f"import sys; sys.stdout.buffer.write({said!r}); sys.exit(7)"
    with (
        Worker(command=[sys.executable, "-c", script]) as child,
        pytest.raises(WorkerDied, match="exit status 7"),
    ):
        child.call("called:echo")


def test_a_large_request_to_a_dead_child_does_not_hang():
    with (
        Worker(command=[sys.executable, "-c", "raise SystemExit(7)"]) as child,
        pytest.raises(WorkerDied, match="exit status 7"),
    ):
        child.call("called:echo", {}, {"x": np.zeros(10**6)})


@pytest.mark.parametrize("kind", ["annotations", "__doc__", "WorkerDied", "nonsense"])
def test_an_error_of_an_unknown_kind_is_a_fault(kind):
    answer = framed({"error": {"type": kind, "message": "m", "hint": None}, "arrays": []})
    script = f"import sys; sys.stdout.buffer.write({answer!r})"
    with (
        Worker(command=[sys.executable, "-c", script]) as child,
        pytest.raises(errors.EdgeattnError) as told,
    ):
        child.call("called:echo")
    assert type(told.value) is errors.EdgeattnError


def test_the_child_ends_with_its_parent():
    """Whatever ended the parent: here nothing is left to it to clean up."""
    script = (
        "import os, sys; from edgeattn.process.worker import Worker; child = Worker();"
        "print(child.call('called:process_id')[0], flush=True); os._exit(0)"
    )
    environment = {**os.environ, "PYTHONPATH": HERE}
    printed = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, check=True
    )
    deadline = time.monotonic() + 5
    while alive(int(printed.stdout)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(int(printed.stdout))


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_call_ends_with_the_connection(kind):
    """As sshd gives it: the process that asked is on another machine, and only the pipe ends."""
    if kind == "pipe":
        there, here = os.pipe()
    else:
        pair = socket.socketpair()
        there, here = (end.detach() for end in pair)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "edgeattn.child"],
        stdin=there,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": HERE},
    )
    os.close(there)
    asked = {"call": "called:sleep_while_asked", "arguments": {"seconds": 60}}
    with os.fdopen(here, "wb") as requests:
        write_message(requests, asked)
        assert read_message(process.stdout)[0] == {"progress": "asleep"}
    try:
        assert process.wait(timeout=20) == 1
    finally:
        process.kill()
        process.stdout.close()


def test_messages_through_a_buffer():
    buffer = io.BytesIO()
    write_message(buffer, {"a": 1}, {"x": np.arange(3, dtype=np.int16)})
    write_message(buffer, {"b": 2})
    buffer.seek(0)
    header, arrays = read_message(buffer)
    assert (header, arrays["x"].tolist()) == ({"a": 1}, [0, 1, 2])
    assert read_message(buffer) == ({"b": 2}, {})
    with pytest.raises(EOFError):
        read_message(buffer)


def test_nothing_is_written_of_what_cannot_be():
    buffer = io.BytesIO()
    with pytest.raises(TypeError):
        write_message(buffer, {"a": types.SimpleNamespace()})
    assert buffer.getvalue() == b""
