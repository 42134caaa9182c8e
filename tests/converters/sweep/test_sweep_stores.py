"""Sweeps whose plan, models, data and results are in S3 and on an SFTP server.

``moto`` answers as S3 does, over HTTP on the loopback interface.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated import run_command
from long_parameters import only

import edgeattn
from sweep.sweeps import LUONG, sftp_folder, write_plan

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("pyarrow")

from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402

from edgeattn.errors import UsageError  # noqa: E402
from edgeattn_converters.sweep import remote, store  # noqa: E402
from edgeattn_converters.sweep.table import from_parquet  # noqa: E402

OPTIONS = 'schemes = ["float32"]\nformats = ["tflite"]\n'


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    options = {"endpoint_url": f"http://{host}:{port}", "key": "test", "secret": "test"}
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    filesystem = fsspec.filesystem("s3")
    # The server forgets nothing while the process lives.
    bucket = f"models-{uuid.uuid4().hex}"
    filesystem.mkdir(bucket)
    yield f"s3://{bucket}/team"
    filesystem.clear_instance_cache()
    running.stop()


@pytest.fixture
def sftp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty folder, on a server whose key is known."""
    pytest.importorskip("paramiko", reason="paramiko is not installed")
    with sftp_folder(tmp_path / "server", monkeypatch) as (url, _):
        yield url


@pytest.fixture(params=only(["s3", "sftp"], "sftp"))
def place(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES_S", (0.01,) * 3)
    monkeypatch.setattr(store, "BEAT_S", 0.1)


def put(place: str, name: str, content: bytes) -> None:
    store.Store(place).write(content, name)


def test_every_thread_has_a_connection_of_its_own() -> None:
    """A client of SFTP that two threads share takes the replies of the other, and hangs."""
    used: dict[int, set[int]] = {}

    class Client(MemoryFileSystem):
        protocol = "oneperthread"

        def _use(self) -> None:
            used.setdefault(id(self), set()).add(threading.get_ident())

        def makedirs(self, path: str, exist_ok: bool = False) -> None:
            self._use()

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
            self._use()
            super().pipe_file(path, value, mode=mode)

    fsspec.register_implementation("oneperthread", Client, clobber=True)
    results = store.Store("oneperthread://results")
    results.write(b"here", "a")
    with ThreadPoolExecutor(1) as executor:
        executor.submit(results.write, b"there", "b").result()
    assert (results.read("a"), results.read("b")) == (b"here", b"there")
    assert sorted(map(len, used.values())) == [1, 1]


@pytest.mark.long
def test_a_sweep_in_a_store(place: str, tmp_path: Path, edgeattn: Callable[..., Any]) -> None:
    """The rows are those of a sweep on this disk, and a repeated sweep does nothing."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, 7, 2)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=inputs, y=rng.normal(size=(40, 11)))
    (tmp_path / "luong.h5").write_bytes(LUONG.read_bytes())
    plan = write_plan(tmp_path, 'path = "*.h5"\ndata = ["{folder}/data.npz"]', options=OPTIONS)
    for name in ("data.npz", "luong.h5", "plan.toml"):
        put(place, name, (tmp_path / name).read_bytes())
    first = edgeattn("sweep", f"{place}/plan.toml", "--json")
    assert (first.code, first.document["done"]) == (0, 1), first.err
    again = edgeattn("sweep", f"{place}/plan.toml", "--json")
    assert (again.code, again.document["done"], again.document["rows"]) == (0, 0, 1)
    assert edgeattn("sweep", plan).code == 0
    there = from_parquet(remote.read(f"{place}/results/table.parquet"))
    here = from_parquet((tmp_path / "results" / "table.parquet").read_bytes())
    assert there[0]["model_file"] == f"{place}/luong.h5"
    assert [{**row, "model_file": None} for row in there] == [
        {**row, "model_file": None} for row in here
    ]
    bundle = store.Store(f"{place}/results").read_bundle(
        here[0]["bundle"].partition("/")[2].removesuffix(".edge"), tmp_path / "copies"
    )
    assert (bundle / here[0]["path"]).stat().st_size == here[0]["bytes"]


def test_files_in_a_store(place: str) -> None:
    results = store.Store(f"{place}/results")
    assert results.keys() == frozenset()
    assert results.read("table.parquet") is None
    results.write_document({"key": "k", "status": "converted"})
    assert results.keys() == {"k"}
    assert results.document("k") == {"key": "k", "status": "converted"}
    put(place, "models/a.h5", b"a")
    put(place, "models/b.h5", b"b")
    assert remote.expand(f"{place}/models/*.h5") == [
        f"{place}/models/a.h5",
        f"{place}/models/b.h5",
    ]
    assert remote.describe(f"{place}/models/a.h5").name == "a.h5"
    with pytest.raises(FileNotFoundError):
        remote.describe(f"{place}/models/c.h5")
    with results.exclusive(), pytest.raises(edgeattn.OutputInUseError), results.exclusive():
        pass


def test_a_refused_login(sftp: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "other"
    run_command(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
    options = {"key_filename": str(key), "allow_agent": False, "look_for_keys": False}
    monkeypatch.setitem(fsspec.config.conf, "sftp", options)
    with pytest.raises(UsageError, match=r"Access to sftp://.* is denied"):
        remote.read(f"{sftp}/plan.toml")
