"""``edgeattn serve`` when the link to its bundle moves, signatures, and the command itself."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from artifacts import (
    BIAS,
    artifact,
    dense,
    samples,
    write_bundle,
    write_dense_bundle,
    write_dense_onnx,
)
from service_client import serving

from edgeattn.bundle.signing import sign
from edgeattn.errors import BundleError, SignatureError
from edgeattn.serving import service as service_module
from edgeattn.serving.model import ServedModel, ServeOptions
from edgeattn.serving.server import Server

X = [1.0, 2.0, 3.0]
OLD = {"score": dense(np.float32([X]))[0].tolist()}
# The new version has another bias.
NEW = {"score": [value + 1 for value in OLD["score"]]}


def write_new(folder):
    """A bundle whose outputs are larger by 1."""
    folder.mkdir(parents=True)
    write_dense_onnx(folder / "m.onnx", bias=BIAS + 1)
    reference = {"input/x": samples(2), "output/score": dense(samples(2)) + 1}
    return write_bundle(folder, [artifact(folder / "m.onnx")], reference)


def move(link, target):
    """As ``deploy`` does: by a rename."""
    temporary = link.with_name("new-link")
    temporary.symlink_to(target)
    temporary.rename(link)


@pytest.fixture
def link(tmp_path):
    """``current``, which leads to the old version of two."""
    old = tmp_path / "versions" / "0001" / "bundle"
    old.parent.mkdir(parents=True)
    write_dense_bundle(old, formats=("onnx",))
    write_new(tmp_path / "versions" / "0002" / "bundle")
    link = tmp_path / "current"
    move(link, "versions/0001/bundle")
    return link


def test_new_requests_go_to_the_new_model_and_running_ones_finish(link, monkeypatch):
    waiting, opened, run = threading.Event(), threading.Event(), ServedModel._run

    def run_late(self, deadline, inputs):
        if threading.current_thread() is first_thread[0]:
            waiting.set()
            assert opened.wait(60)
        return run(self, deadline, inputs)

    first_thread = [None]

    def post_first(service):
        def respond(*arguments, **options):
            first_thread[0] = threading.current_thread()
            return answer(*arguments, **options)

        answer = service.server.service.answer
        monkeypatch.setattr(service.server.service, "answer", respond)
        return service.post({"samples": [X, X]})

    monkeypatch.setattr(ServedModel, "_run", run_late)
    with serving(link) as service, ThreadPoolExecutor() as pool:
        old = service.server.service._model
        running = pool.submit(post_first, service)
        assert waiting.wait(60)
        monkeypatch.undo()
        move(link, "versions/0002/bundle")
        service.server.service.reload_if_moved()
        assert service.post({"sample": X}).document == NEW
        # The deployment may remove the old version.
        shutil.rmtree(link.parent / "versions" / "0001")
        assert old._worker._process is not None
        opened.set()
        assert running.result().document == {"answers": [OLD, OLD]}
        while old._worker._process is not None:
            pass
        assert service.post({"sample": X}).document == NEW
        metrics = service.get("/metrics").body.decode()
        assert 'edgeattn_reloads_total{result="success"} 1' in metrics
        assert "Loaded" in service.log[0]


def test_an_idle_model_ends_at_once(link):
    with serving(link) as service:
        assert service.post({"sample": X}).document == OLD
        old = service.server.service._model
        before = service.get("/health").document["manifest"]
        service.server.service.reload_if_moved()
        assert service.server.service._model is old
        move(link, "versions/0002/bundle")
        service.server.service.reload_if_moved()
        assert old._worker._process is None
        assert service.get("/health").document["manifest"] != before


def test_a_bundle_that_is_replaced_in_place(tmp_path):
    path = tmp_path / "a.edge"
    write_dense_bundle(path, formats=("onnx",))
    write_new(tmp_path / "b.edge")
    with serving(path) as service:
        path.rename(tmp_path / "old.edge")
        service.server.service.reload_if_moved()  # between the two renames
        assert service.post({"sample": X}).document == OLD
        (tmp_path / "b.edge").rename(path)
        service.server.service.reload_if_moved()
        assert service.post({"sample": X}).document == NEW


def test_a_bundle_that_cannot_be_loaded_leaves_the_old_one_serving(link, monkeypatch):
    damaged = link.parent / "versions" / "0002" / "bundle" / "m.onnx"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1])
    with serving(link) as service:
        served = service.server.service
        move(link, "versions/0002/bundle")
        served.reload_if_moved()
        served.reload_if_moved()  # it is tried again later only
        assert service.post({"sample": X}).document == OLD
        assert service.get("/health").document["reload_failed"] is True
        metrics = service.get("/metrics").body.decode()
        assert 'edgeattn_reloads_total{result="failure"} 1' in metrics
        assert len(service.log) == 1
        assert "m.onnx has changed" in service.log[0]
        damaged.write_bytes(content)
        monkeypatch.setattr(service_module, "RETRY_SECONDS", 0)
        served._retry_at = 0
        served.reload_if_moved()
        assert service.post({"sample": X}).document == NEW
        assert service.get("/health").document["reload_failed"] is False


def test_the_path_is_watched_while_the_service_runs(link):
    reloaded = threading.Event()
    from edgeattn.serving.server import Server

    server = Server(link, ServeOptions(), "127.0.0.1", 0, lambda line: reloaded.set())
    stop = threading.Event()
    thread = threading.Thread(target=server.run, args=(stop,), kwargs={"reload_seconds": 0.01})
    thread.start()
    try:
        move(link, "versions/0002/bundle")
        assert reloaded.wait(60)
    finally:
        stop.set()
        thread.join()


def test_only_signed_bundles_are_served(link, keys):
    options = ServeOptions(allowed_signers=keys / "allowed")
    with pytest.raises(SignatureError, match="not signed"), serving(link, options):
        pass
    from edgeattn.bundle.bundle import Bundle

    sign(Bundle.open(link), keys / "release")
    with serving(link, options) as service:
        move(link, "versions/0002/bundle")
        service.server.service.reload_if_moved()
        assert service.post({"sample": X}).document == OLD
        assert "not signed" in service.log[0]


def test_a_path_without_a_bundle(tmp_path):
    with pytest.raises(BundleError), serving(tmp_path / "no.edge"):
        pass


def test_the_command_answers_until_sigterm(link):
    command = [sys.executable, "-m", "edgeattn", "serve", str(link), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        match = re.fullmatch(r"Serving onnx float32 in .* at (http://127\.0\.0\.1:\d+)\n", line)
        assert match, line
        request = urllib.request.Request(
            match[1] + "/answer",
            json.dumps({"sample": X}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            assert json.load(response) == OLD
        os.kill(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "")
    finally:
        process.kill()
        process.wait()


def test_the_steps_of_loading_are_shown(link, edgeattn, monkeypatch):
    def end(server, _):
        server.server_close()
        server.service.close()

    monkeypatch.setattr(Server, "run", end)
    shown = edgeattn("serve", link, "--port", "0", "--verbose").err.splitlines()
    steps = [line.split("s  ")[1] for line in shown if re.match(r" +\d+\.\d s  ", line)]
    assert steps == [f"reading {link.name}", "loading dense.float32.onnx"]
    assert edgeattn("serve", link, "--port", "0").err == ""  # stderr is not a terminal


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no.edge"], 2, "no.edge"),
        (["{link}", "--host", "no-such-host.invalid"], 2, "Cannot listen on no-such-host"),
        (["{link}", "--format", "tflite"], 2, "no artifact for tflite"),
        (["{link}", "--timeout", "0"], 2, "--timeout"),
        (["{link}", "--port", "70000"], 2, "--port"),
    ],
)
def test_arguments_that_are_refused(link, edgeattn, arguments, code, message):
    result = edgeattn("serve", *[item.replace("{link}", str(link)) for item in arguments])
    assert result.code == code
    assert message in result.err
