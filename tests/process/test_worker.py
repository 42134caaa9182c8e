"""Calls to a worker process: transfer of values, errors, and the death of the worker."""

import io
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import worker_functions  # noqa: F401 - called in the worker

from edgeattn import errors, progress
from edgeattn.printable import Text, join_lines, printable
from edgeattn.process.protocol import (
    MAX_HEADER,
    error_from_json,
    error_to_json,
    read_message,
    write_message,
)
from edgeattn.process.streams import TAIL, OutputTooLongError, run_bounded
from edgeattn.process.worker import Worker, WorkerDiedError

DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]


TESTS = str(Path(__file__).parents[1])


def alive(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def framed(header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


def test_lines_of_messages():
    """Line feeds of edgeattn's own are printed as such, unlike those of what a message quotes."""
    lines = ["Two classes:", "  a\x1bb"]
    for message, expected in (
        (join_lines(lines), "Two classes:\n  a\\x1bb"),
        ("\n".join(lines), "Two classes:\\n  a\\x1bb"),
    ):
        sent = json.dumps(error_to_json(errors.UsageError(message)))
        received = error_from_json(json.loads(sent)).message
        assert expected == (received if isinstance(received, Text) else printable(received))


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_every_dtype_are_returned_unchanged(worker, dtype):
    sent = {
        "matrix": np.arange(2 * 3 * 5).reshape(2, 3, 5).astype(dtype),
        "scalar": np.array(1).astype(dtype),
        "empty": np.zeros((0, 7), dtype),
        "strided": np.arange(30).reshape(5, 6).astype(dtype)[::2, ::-3],
        "transposed": np.arange(6).reshape(2, 3).astype(dtype).T,
        "big endian": np.arange(5).astype(np.dtype(dtype).newbyteorder(">")),
    }
    result, got = worker.call("worker_functions:echo", {"values": [1, None, "ü", 0.1]}, sent)
    assert result == {"values": [1, None, "ü", 0.1]}
    assert list(got) == list(sent)
    for name, array in sent.items():
        assert got[name].shape == array.shape, name
        assert got[name].dtype == array.dtype.newbyteorder("<"), name
        np.testing.assert_array_equal(got[name], array)
        got[name][...] = 0  # the caller may modify it


def test_the_worker_receives_little_endian_arrays(worker):
    sent = {"a": np.float32(2.5), "b": np.ones((1, 0, 3), ">i2")}
    result, _ = worker.call("worker_functions:dtypes_and_shapes", {}, sent)
    assert result == {"a": ["<f4", []], "b": ["<i2", [1, 0, 3]]}


def test_nan_and_infinity_are_returned_unchanged(worker):
    sent = np.array([np.nan, np.inf, -np.inf, -0.0])
    _, got = worker.call("worker_functions:echo", {}, {"x": sent})
    assert got["x"].tobytes() == sent.tobytes()


@pytest.mark.parametrize("array", [np.array([object()]), np.array(["text"]), np.zeros(2, "V3")])
def test_arrays_that_are_not_numeric_are_rejected_before_sending(worker, array):
    before, _ = worker.call("worker_functions:process_id")
    with pytest.raises(TypeError, match="not numeric"):
        worker.call("worker_functions:echo", {}, {"x": array})
    assert worker.call("worker_functions:process_id")[0] == before


def test_one_process_serves_many_calls(worker):
    assert worker.call("worker_functions:process_id") == worker.call("worker_functions:process_id")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_death_by_signal_and_the_restart_with_the_next_call(worker, number):
    with pytest.raises(WorkerDiedError, match=f"died of {number.name}") as caught:
        worker.call("worker_functions:kill", {"number": int(number)})
    assert "last words" in caught.value.output
    assert worker.call("worker_functions:echo", {"a": 1})[0] == {"a": 1}


@pytest.mark.parametrize("status", [0, 3])
def test_an_exit_of_the_worker(worker, status):
    with pytest.raises(WorkerDiedError, match=f"exit status {status}"):
        worker.call("worker_functions:exit_with", {"status": status})


def test_timeout(worker):
    process_id, _ = worker.call("worker_functions:process_id")
    with pytest.raises(WorkerDiedError, match=r"longer than 0\.2 s"):
        worker.call("worker_functions:sleep", {"seconds": 3600}, timeout=0.2)
    assert not alive(process_id)
    assert worker.call("worker_functions:echo", {"a": 1})[0] == {"a": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the memory")
def test_the_memory_of_a_worker_is_limited(worker):
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < worker.call("worker_functions:memory_limit")[0] <= machine
    assert worker.call("worker_functions:memory_limit", memory=2**30)[0] == 2**30
    # A limit can be raised again.
    assert worker.call("worker_functions:memory_limit", memory=2**31)[0] == 2**31


def test_the_limit_of_a_call_ends_with_it(worker):
    process_id, _ = worker.call("worker_functions:process_id", timeout=60)
    assert worker._watchdog._deadline == math.inf
    assert worker.call("worker_functions:process_id")[0] == process_id


@pytest.mark.parametrize(
    ("kind", "code"), [("SampleError", 2), ("ArtifactError", 3), ("UnsafeModelError", 4)]
)
def test_errors_of_edgeattn_are_raised_again(worker, kind, code):
    with pytest.raises(errors.EdgeattnError) as caught:
        worker.call("worker_functions:raise_error", {"kind": kind})
    assert type(caught.value) is getattr(errors, kind)
    assert (caught.value.message, caught.value.hint) == ("something is wrong", "Try this.")
    assert caught.value.exit_code == code
    assert worker.call("worker_functions:echo", {"a": 1})[0] == {"a": 1}


def test_other_errors_are_internal_errors_with_a_traceback(worker):
    with pytest.raises(errors.EdgeattnError, match="ZeroDivisionError: division by zero") as caught:
        worker.call("worker_functions:divide_by_zero")
    assert caught.value.exit_code == 70
    assert "in divide_by_zero" in "".join(caught.value.__notes__)


def test_the_message_of_an_internal_error_is_one_line(worker):
    """With its beginning and its end; the stack is a part of the output of --debug."""
    with pytest.raises(errors.EdgeattnError) as caught:
        worker.call("worker_functions:fail_with_a_stack")
    message = caught.value.message
    assert message.startswith("ValueError: Graph execution error: Detected at node Reshape: ")
    assert message.endswith(" no such shape")
    assert "\n" not in message
    assert len(message) <= 410
    assert "--debug" in caught.value.hint


@pytest.mark.parametrize("function", ["no_module:f", "worker_functions:none", "nonsense"])
def test_unknown_functions(worker, function):
    with pytest.raises(errors.EdgeattnError, match=r"(ModuleNotFound|Attribute)Error"):
        worker.call(function)


def test_exhausted_memory_is_not_an_internal_error(worker):
    with pytest.raises(errors.UnsupportedModelError, match="memory"):
        worker.call("worker_functions:raise_memory_error")


@pytest.mark.parametrize("function", ["return_a_set", "return_objects"])
def test_results_that_cannot_be_sent_do_not_end_the_worker(worker, function):
    process_id, _ = worker.call("worker_functions:process_id")
    with pytest.raises(errors.EdgeattnError, match="TypeError"):
        worker.call(f"worker_functions:{function}")
    assert worker.call("worker_functions:process_id")[0] == process_id


def test_a_pair_without_arrays_is_one_result(worker):
    assert worker.call("worker_functions:return_a_pair")[0] == [1, 2]


def test_prints_do_not_disturb_replies(worker):
    assert worker.call("worker_functions:print_to_stdout")[0] == "printed"


def test_functions_cannot_read_the_requests(worker):
    assert worker.call("worker_functions:read_standard_input")[0] == ""
    assert worker.call("worker_functions:echo", {"a": 1})[0] == {"a": 1}


def test_progress():
    messages = []
    environment = {"PYTHONPATH": TESTS}
    with progress.shown_by(messages.append), Worker(environment=environment) as worker:
        worker.call("worker_functions:report_progress", {"steps": ["a", "b"]})
    assert messages == ["a", "b"]


def test_an_interrupted_call_ends_the_worker(worker):
    def interrupt(_):
        raise KeyboardInterrupt

    process_id, _ = worker.call("worker_functions:process_id")
    with pytest.raises(KeyboardInterrupt), progress.shown_by(interrupt):
        worker.call("worker_functions:report_progress", {"steps": ["a"]})
    assert not alive(process_id)


def test_the_current_folder_is_not_on_the_import_path(tmp_path, monkeypatch, worker):
    for name in ("json", "numpy", "struct"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    assert worker.call("worker_functions:echo", {"a": 1})[0] == {"a": 1}


def test_a_missing_interpreter():
    with (
        Worker(command=["/no/such/python"]) as worker,
        pytest.raises(WorkerDiedError, match="started"),
    ):
        worker.call("worker_functions:echo")


@pytest.mark.parametrize(
    "output",
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
def test_malformed_replies(output, monkeypatch):
    died = Worker._died
    # The process would not end in half a second either.
    monkeypatch.setattr(
        *(Worker, "_died"),
        lambda self, reason, wait_seconds: died(self, reason, wait_seconds=wait_seconds / 20),
    )
    script = (
        f"import sys, time; sys.stdout.buffer.write({output!r}); sys.stdout.flush();"
        "time.sleep(3600)"
    )
    with (
        Worker(command=[sys.executable, "-c", script]) as worker,
        pytest.raises(WorkerDiedError) as caught,
    ):
        worker.call("worker_functions:echo")
    assert str(caught.value) == "sent a malformed reply"


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"1234",
        framed({"arrays": []})[:-1],
        # Announces 4 GiB and sends none of it.
        framed({"arrays": [{"name": "x", "dtype": "<f4", "shape": [2**30]}]}),
    ],
)
def test_incomplete_replies(output):
    script = f"import sys; sys.stdout.buffer.write({output!r}); sys.exit(7)"
    with (
        Worker(command=[sys.executable, "-c", script]) as worker,
        pytest.raises(WorkerDiedError, match="exit status 7"),
    ):
        worker.call("worker_functions:echo")


def test_a_large_request_to_a_dead_worker_does_not_hang():
    with (
        Worker(command=[sys.executable, "-c", "raise SystemExit(7)"]) as worker,
        pytest.raises(WorkerDiedError, match="exit status 7"),
    ):
        worker.call("worker_functions:echo", {}, {"x": np.zeros(10**6)})


@pytest.mark.parametrize("kind", ["annotations", "__doc__", "WorkerDiedError", "nonsense"])
def test_errors_of_unknown_types_are_internal_errors(kind):
    reply = framed({"error": {"type": kind, "message": "m", "hint": None}, "arrays": []})
    # The worker reads before it ends: a request to an ended one is its death.
    script = f"import sys; sys.stdin.buffer.read1(); sys.stdout.buffer.write({reply!r})"
    with (
        Worker(command=[sys.executable, "-c", script]) as worker,
        pytest.raises(errors.EdgeattnError) as caught,
    ):
        worker.call("worker_functions:echo")
    assert type(caught.value) is errors.EdgeattnError


def test_the_worker_ends_with_its_parent():
    """Also if the parent had no chance to close the worker."""
    script = (
        "import os, sys; from edgeattn.process.worker import Worker; worker = Worker();"
        "print(worker.call('worker_functions:process_id')[0], flush=True); os._exit(0)"
    )
    environment = {**os.environ, "PYTHONPATH": TESTS}
    printed = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, check=True
    )
    while alive(int(printed.stdout)):
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_call_ends_with_the_connection(kind):
    """As with sshd: the caller is on another machine, and only the connection ends."""
    if kind == "pipe":
        remote, local = os.pipe()
    else:
        pair = socket.socketpair()
        remote, local = (end.detach() for end in pair)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "edgeattn.child"],
        stdin=remote,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": TESTS},
    )
    os.close(remote)
    request = {"call": "worker_functions:report_and_sleep", "arguments": {"seconds": 3600}}
    with os.fdopen(local, "wb") as requests:
        write_message(requests, request)
        assert read_message(process.stdout)[0] == {"progress": "sleeping"}
    try:
        assert process.wait() == 1
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


def test_a_message_that_cannot_be_encoded_writes_nothing():
    buffer = io.BytesIO()
    with pytest.raises(TypeError):
        write_message(buffer, {"a": types.SimpleNamespace()})
    assert buffer.getvalue() == b""


FLOOD = "import sys\nwhile True: sys.{stream}.buffer.write(b'x' * 65536)"


def test_endless_error_output_neither_fills_the_disk_nor_blocks():
    """The worker writes far more than a pipe holds, and only the end is kept."""
    script = (
        "import os, sys; sys.stderr.buffer.write(b'x' * 10_000_000 + b'last words');"
        "sys.stderr.flush(); os._exit(7)"
    )
    with (
        Worker(command=[sys.executable, "-c", script]) as worker,
        pytest.raises(WorkerDiedError, match="exit status 7") as caught,
    ):
        worker.call("worker_functions:echo")
    assert caught.value.output.endswith("last words")
    assert len(caught.value.output) == TAIL


def test_the_arrays_of_a_reply_are_limited_together():
    entries = [{"name": str(n), "dtype": "|u1", "shape": [400]} for n in range(3)]
    reply = framed({"result": 1, "arrays": entries}, bytes(1200))
    for limit, matches in ((1200, True), (1199, False)):
        script = f"import sys, time; sys.stdout.buffer.write({reply!r}); sys.stdout.flush();"
        command = [sys.executable, "-c", script + "time.sleep(3600)"]
        with Worker(command=command, max_arrays=limit) as worker:
            if matches:
                assert len(worker.call("worker_functions:echo")[1]) == 3
            else:
                with pytest.raises(WorkerDiedError, match="malformed"):
                    worker.call("worker_functions:echo")


@pytest.mark.parametrize("error", [1, "text", [], {}, {"type": "SampleError"}])
def test_malformed_errors(error):
    reply = framed({"error": error, "arrays": []})
    script = f"import sys, time; sys.stdout.buffer.write({reply!r}); sys.stdout.flush();"
    command = [sys.executable, "-c", script + "time.sleep(3600)"]
    with Worker(command=command) as worker, pytest.raises(WorkerDiedError, match="malformed"):
        worker.call("worker_functions:echo")


def test_bounded_runs():
    def run(script, data=None, timeout=3600, limit=10):
        return run_bounded([sys.executable, "-c", script], data, timeout=timeout, limit=limit)

    echo = "import sys; sys.stdout.write(sys.stdin.read()); sys.stderr.write('e'); sys.exit(3)"
    assert run(echo, b"1234567890") == (3, b"1234567890", "e")
    assert run("pass", bytes(10**7)) == (0, b"", "")  # reads nothing
    with pytest.raises(OutputTooLongError):
        run(FLOOD.format(stream="stdout"))
    with pytest.raises(subprocess.TimeoutExpired):
        run(FLOOD.format(stream="stderr"), timeout=0.5)
    with pytest.raises(FileNotFoundError):
        run_bounded(["/no/such/program"], None, timeout=1, limit=1)
