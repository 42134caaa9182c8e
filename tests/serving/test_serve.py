"""Answers, errors and limits of ``edgeattn serve``, on the dense model."""

import json
import random
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from artifacts import artifact, dense, samples, write_bundle, write_dense_bundle, write_slow_onnx
from front_ends import COUNTS, WINDOWS, add_front_end, expected
from service_client import serving

import edgeattn as package
from edgeattn.errors import UsageError
from edgeattn.serving.counters import BUCKETS
from edgeattn.serving.model import ServedModel, ServeOptions
from edgeattn.serving.server import MAX_CONNECTIONS, Server

STATUSES = {200, 400, 404, 405, 408, 411, 413, 415, 421, 501, 505}


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    """A service whose bundle takes windows of three readings and has labels."""
    bundle = write_dense_bundle(tmp_path_factory.mktemp("serve") / "a.edge", formats=("onnx",))
    add_front_end(bundle, WINDOWS)
    with serving(bundle.path, ServeOptions(max_bytes=2000)) as service:
        yield service


@pytest.fixture
def gate(monkeypatch):
    """Inferences wait for the second event; the first is set as soon as one waits."""
    waiting, opened, run = threading.Event(), threading.Event(), ServedModel._run

    def wait_and_run(self, deadline, inputs):
        waiting.set()
        assert opened.wait(60)
        return run(self, deadline, inputs)

    monkeypatch.setattr(ServedModel, "_run", wait_and_run)
    yield waiting, opened
    opened.set()


def test_one_sample_and_several(windows):
    first, second = [1.0, 2.0, -3.0], [0.5, 4.0, 7.25]
    reply = windows.post({"sample": first})
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    assert reply.document == expected(first)
    assert windows.post({"sample": {"x": first}}).document == expected(first)
    assert windows.post({"samples": [first, second, first]}).document == {
        "answers": [expected(first), expected(second), expected(first)]
    }


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_outputs_by_name_without_a_front_end(tmp_path, format):
    bundle = write_dense_bundle(tmp_path / "a.edge")
    with serving(bundle.path, ServeOptions(formats=(format,))) as service:
        x = samples(2)
        assert service.post({"samples": x.tolist()}).document == {
            "answers": [{"score": row} for row in dense(x).tolist()]
        }
        assert json.loads(service.get("/health").body)["format"] == format


def test_text(tmp_path):
    bundle = write_dense_bundle(tmp_path / "a.edge", formats=("onnx",))
    add_front_end(bundle, COUNTS)
    with serving(bundle.path) as service:
        values = dense(np.float32([[1, 2, 0]]))[0].tolist()
        assert service.post({"sample": ["a", "c", "a"]}).document == {"value": values}
        reply = service.post({"sample": [1, 2]})
        assert (reply.status, reply.message) == (
            400,
            "Input x, step 1 (string_lookup): [1, 2] is not text.",
        )
        for ragged in ([None, []], ["a", ["b"]], [["a"], []]):
            reply = service.post({"sample": ragged})
            assert (reply.status, "no rectangular shape" in reply.message) == (400, True)


def test_an_empty_sample_has_no_answer(tmp_path):
    bundle = write_dense_bundle(tmp_path / "a.edge", formats=("onnx",))
    add_front_end(bundle, COUNTS)
    with serving(bundle.path) as service:
        for sample in ("", " ", [], ["", " "], {"x": ""}):
            reply = service.post({"sample": sample})
            assert (reply.status, reply.document["error"]["hint"]) == (
                400,
                "Leave empty samples out.",
            )
        reply = service.post({"samples": ["a", ""]})
        assert reply.message.startswith("Sample 2: The sample is empty")
        # A word that is not in the vocabulary is a word.
        assert service.post({"sample": "zebra"}).status == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"[", "not JSON"),
        (b"[" * 1900, "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"sample": [NaN, 1, 2]}', "NaN is not a number of JSON"),
        (b'{"sample": [1, -Infinity, 2]}', "-Infinity is not a number of JSON"),
        (b'{"sample": [1e999, 1, 2]}', "not all finite"),
        (b'{"sample": 1, "sample": [1, 2, 3]}', "a key twice"),
        (b'{"sample": {"x": 1, "x": [1, 2, 3]}}', "a key twice"),
        (b"[1, 2, 3]", "not an object"),
        (b'{"sample": [1, 2, 3], "more": 1}', "not an object"),
        (b'{"sample": [1, 2, 3], "samples": []}', "not an object"),
        (b'{"samples": []}', "not a list of one or more"),
        (b'{"samples": {"x": [1, 2, 3]}}', "not a list of one or more"),
        (b'{"samples": [[1, 2, 3], [1, 2]]}', "Sample 2: A window has 3 readings; received 2."),
        (b'{"sample": [1, "2", 3]}', "is not a number"),
        (b'{"sample": [1, null, 3]}', "is not a number"),
        (b'{"sample": [1, [2], 3]}', "no rectangular shape"),
        (b'{"sample": "abc"}', "is not a number"),
        (b'{"sample": null}', "is not a number"),
        (b'{"sample": {"y": [1, 2, 3]}}', "The model has no input 'y'"),
        (b'{"sample": {"x": [1, 2, 3], "y": 1}}', "The model has no input 'y'"),
        (b'{"sample": {}}', "The sample has no input 'x'"),
        (b'{"sample": [1' + b"0" * 400 + b", 2, 3]}", "is not a number"),
    ],
)
def test_malformed_requests(windows, body, message):
    reply = windows.post(body)
    assert (reply.status, reply.headers["Content-Type"]) == (400, "application/json")
    assert message in reply.message


def test_messages_are_those_of_the_library(windows):
    for sample in ([1, 2], "abc", [1, None, 3], {"x": [[1]]}):
        with pytest.raises(package.SampleError) as error:
            package.load(windows.path).answer(sample)
        assert windows.post({"sample": sample}).message == error.value.message


def test_text_of_others_is_printable(windows):
    reply = windows.post({"sample": {"\x1b[2J\n\u202e": 1}})
    assert reply.status == 400
    assert reply.message.isprintable()
    reply = windows.request("PUT", "/answer", b"")
    assert (reply.status, reply.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/answer/../health", 404),
        ("GET", "/health/%2e%2e/manifest.json", 404),
        ("GET", "//etc/passwd", 404),
        ("POST", "/health", 405),
        ("GET", "/answer", 405),
        ("HEAD", "/health", 200),
        ("HEAD", "/answer", 405),
        ("OPTIONS", "/answer", 405),
        ("QUERY", "/answer", 405),
        ("BREW", "/answer", 501),
    ],
)
def test_paths_and_methods(windows, method, path, status):
    reply = windows.request(method, path)
    assert reply.status == status
    assert (reply.body == b"") == (method == "HEAD")
    if method != "HEAD":
        assert reply.document["error"]["message"] or status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content_Type": "application/json; charset=latin-1"}, 415),
        ({"Content_Type": "application/json; charset=UTF-8"}, 200),
        ({"Content_Encoding": "gzip"}, 415),
        ({"Host": "attacker.example"}, 421),
        ({"Host": "attacker.example:80"}, 421),
        ({"Host": ""}, 421),
        ({"Host": "["}, 421),
        ({"Host": "LOCALHOST:1"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Expect": "100-continue"}, 200),
    ],
)
def test_headers(windows, headers, status):
    assert windows.post({"sample": [1, 2, 3]}, **headers).status == status


def raw_exchange(service, data):
    """What the server returns for the bytes of a connection that the client ends."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        received = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except ConnectionError:
            pass  # it was refused before all was sent
        return received


HEAD = b"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SAMPLE = b'{"sample": [1, 2, 3]}'


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (HEAD + b"\r\n" + SAMPLE, 411),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n15\r\n" + SAMPLE + b"\r\n0\r\n\r\n", 411),
        (HEAD + b"Content-Length: -1\r\n\r\n", 411),
        (HEAD + b"Content-Length: 1e3\r\n\r\n", 411),
        (HEAD + b"Content-Length: 21\r\nContent-Length: 5\r\n\r\n" + SAMPLE, 411),
        (HEAD + b"Content-Length: 999999999999\r\n\r\n", 413),
        (HEAD + b"Content-Length: 30\r\n\r\n" + SAMPLE, 400),
        (b"GET http://[/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        (b"GET /health HTTP/9.9\r\n\r\n", 505),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
    ],
)
def test_malformed_http(windows, data, status):
    received = raw_exchange(windows, data)
    assert received.startswith(b"HTTP/1.1 %d " % status)
    # A second request hidden in the body is not answered.
    assert received.count(b"HTTP/1.1 ") == 1
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert json.loads(body)["error"]["message"]


def test_random_requests(windows):
    """Mutations of a request get a documented status, and the service goes on."""
    request = HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(SAMPLE) + SAMPLE
    generator = random.Random(5)
    statuses = set()
    for _ in range(150):
        data = bytearray(request)
        for _ in range(generator.randint(1, 4)):
            position = generator.randrange(len(data))
            kind = generator.randrange(3)
            if kind == 0:
                data[position] = generator.randrange(256)
            elif kind == 1:
                del data[position : position + generator.randint(1, 9)]
            else:
                data[position:position] = generator.randbytes(generator.randint(1, 9))
        received = raw_exchange(windows, bytes(data))
        match = re.match(rb"HTTP/1\.1 (\d{3}) ", received)
        if match:
            statuses.add(int(match[1]))
            body = received.partition(b"\r\n\r\n")[2]
            assert b"nan" not in body.lower()
    assert statuses <= STATUSES | {414, 431}
    assert len(statuses) > 4
    assert windows.log == []
    assert windows.post({"sample": [1, 2, 3]}).document == expected([1, 2, 3])


def test_a_body_over_the_limit_is_refused_and_the_client_reads_the_answer(windows):
    for headers in ({}, {"Expect": "100-continue"}):
        reply = windows.post(b" " * 300_000, **headers)
        assert (reply.status, reply.headers["Connection"]) == (413, "close")
        assert "300000 bytes; the limit is 2000" in reply.message


def test_a_connection_serves_several_requests(windows):
    connection = windows.connection()
    for path, status in [("/health", 200), ("/nothing", 404), ("/health", 200)]:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == status
    assert connection.sock is not None
    connection.close()


def test_a_body_that_does_not_arrive(tmp_path):
    bundle = write_dense_bundle(tmp_path / "a.edge", formats=("onnx",))
    with serving(bundle.path, ServeOptions(seconds=0.2)) as service:
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
            connection.sendall(HEAD + b"Content-Length: 21\r\n\r\n{")
            assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
        # An idle connection ends, too.
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
            assert connection.recv(1) == b""


def test_concurrent_clients_get_their_own_answers(windows):
    rows = (np.arange(8 * 30).reshape(80, 3) - 100).tolist()

    def answers(part):
        connection = windows.connection()
        results = []
        for row in part:
            body = json.dumps({"sample": row})
            connection.request("POST", "/answer", body, {"Content-Type": "application/json"})
            results.append(json.loads(connection.getresponse().read()))
        connection.close()
        return results

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(answers, [rows[start::8] for start in range(8)]))
    for start, part in enumerate(results):
        assert part == [expected(row) for row in rows[start::8]]


def test_more_requests_than_the_limit(tmp_path, gate):
    waiting, opened = gate
    bundle = write_dense_bundle(tmp_path / "a.edge", formats=("onnx",))
    with (
        serving(bundle.path, ServeOptions(max_requests=1)) as service,
        ThreadPoolExecutor() as pool,
    ):
        first = pool.submit(service.post, {"sample": [1, 2, 3]})
        assert waiting.wait(60)
        reply = service.post({"sample": [1, 2, 3]})
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        assert "edgeattn_requests_in_progress 1" in service.get("/metrics").body.decode()
        opened.set()
        assert first.result().status == 200
        assert service.post({"sample": [1, 2, 3]}).status == 200


def test_a_request_that_waits_too_long_for_the_model(tmp_path, monkeypatch):
    bundle = write_dense_bundle(tmp_path / "a.edge", formats=("onnx",))
    with serving(bundle.path, ServeOptions(seconds=0.2)) as service:
        with service.server.service.model() as model, model._lock:
            reply = service.post({"sample": [1, 2, 3]})
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        assert service.post({"sample": [1, 2, 3]}).status == 200


def test_more_connections_than_the_limit(windows):
    connections = [
        socket.create_connection(("127.0.0.1", windows.port), timeout=30)
        for _ in range(MAX_CONNECTIONS + 1)
    ]
    try:
        # The last one is refused at once, whatever it asks.
        refused = connections[-1].recv(65536)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in refused
    finally:
        for connection in connections:
            connection.close()


def test_a_runtime_that_never_returns(tmp_path):
    folder = tmp_path / "slow.edge"
    folder.mkdir()
    write_slow_onnx(folder / "m.onnx")
    bundle = write_bundle(folder, [artifact(folder / "m.onnx")], {"input/x": samples(2)})
    with serving(bundle.path, ServeOptions(seconds=0.3)) as service:
        # The runtime is started again for the second one.
        for _ in range(2):
            reply = service.post({"sample": [1, 2, 3]})
            assert (reply.status, reply.message) == (504, "The request took longer than 0.3 s.")
        assert service.get("/health").status == 200


def test_a_runtime_that_crashes_is_started_again(tmp_path):
    bundle = write_dense_bundle(tmp_path / "a.edge", formats=("onnx",))
    with serving(bundle.path) as service:
        with service.server.service.model() as model:
            model._worker.kill()
        reply = service.post({"sample": [1, 2, 3]})
        assert reply.status == 500
        assert "died of SIGKILL" in reply.message
        assert "died of SIGKILL" in service.log[0]
        reply = service.post({"sample": [1, 2, 3]})
        assert reply.document == {"score": dense(np.float32([[1, 2, 3]]))[0].tolist()}


def test_an_output_that_is_not_finite(tmp_path):
    bundle = write_dense_bundle(tmp_path / "a.edge", formats=("onnx",))
    with serving(bundle.path) as service:
        reply = service.post({"sample": [0, 3e38, 3e38]})
        assert reply.status == 500
        assert "NaN or infinite" in reply.message
        assert "--allow" not in reply.document["error"]["hint"]


def test_running_requests_finish_when_the_service_ends(tmp_path, gate):
    waiting, opened = gate
    bundle = write_dense_bundle(tmp_path / "a.edge", formats=("onnx",))
    with ThreadPoolExecutor() as pool:
        with serving(bundle.path) as service:
            idle = service.connection()
            idle.request("GET", "/health")
            idle.getresponse().read()
            running = pool.submit(service.post, {"sample": [1, 2, 3]})
            assert waiting.wait(60)
            service.stop.set()
            while not service.server.service.draining:
                pass
            # A connection that is still open gets an answer, and is closed.
            idle.request("GET", "/health")
            response = idle.getresponse()
            assert (response.status, response.headers["Connection"]) == (503, "close")
            opened.set()
        reply = running.result()
    assert reply.document == {"score": dense(np.float32([[1, 2, 3]]))[0].tolist()}
    with pytest.raises(ConnectionError):
        service.get("/health")


def test_metrics(tmp_path):
    bundle = write_dense_bundle(tmp_path / "a.edge", formats=("onnx",))
    with serving(bundle.path) as service:
        service.post({"samples": samples(3).tolist()})
        service.post({"sample": "a"})
        reply = service.get("/metrics")
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    line = re.compile(r'(\w+)(\{\w+="[^"\\\n]*"(?:,\w+="[^"\\\n]*")*\})? ([0-9.e+-]+)')
    values, types = {}, {}
    for text in reply.body.decode().splitlines():
        if text.startswith("# TYPE "):
            types[text.split()[2]] = text.split()[3]
        elif not text.startswith("# HELP "):
            match = line.fullmatch(text)
            assert match, text
            values[match[1] + (match[2] or "")] = float(match[3])
    assert values['edgeattn_responses_total{status="200"}'] == 1
    assert values['edgeattn_responses_total{status="400"}'] == 1
    assert values["edgeattn_samples_total"] == 3
    assert values["edgeattn_request_seconds_count"] == 1
    assert values['edgeattn_request_seconds_bucket{le="+Inf"}'] == 1
    counts = [values[f'edgeattn_request_seconds_bucket{{le="{bound}"}}'] for bound in BUCKETS]
    assert counts == sorted(counts)
    assert types["edgeattn_request_seconds"] == "histogram"
    assert types["edgeattn_responses_total"] == "counter"


def test_an_address_in_use(tmp_path, windows):
    with pytest.raises(UsageError, match=f"Cannot listen on 127.0.0.1, port {windows.port}"):
        Server(windows.path, ServeOptions(), "127.0.0.1", windows.port)
    with pytest.raises(UsageError, match="Cannot listen on no-such-host"):
        Server(windows.path, ServeOptions(), "no-such-host.invalid", 0)
