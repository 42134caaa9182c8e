"""SFTP servers whose keys are known, unknown, changed or revoked, through a real sshd."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulated import run_command

from sweep.sweeps import sftp_folder

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("paramiko")

from edgeattn.errors import UsageError  # noqa: E402
from edgeattn_converters.sweep import host_keys, remote  # noqa: E402


def disconnect() -> None:
    """Forget connections, so that the next use makes a new one."""
    for protocol in ("sftp", "simplecache"):
        fsspec.get_filesystem_class(protocol).clear_instance_cache()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of a file with the content "a", and the file of known hosts."""
    folder = tmp_path_factory.mktemp("sftp") / "server"
    with pytest.MonkeyPatch.context() as patch, sftp_folder(folder, patch) as (url, known):
        (folder / "a").write_bytes(b"a")
        yield f"{url}/a", known


@pytest.fixture
def known(server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the file of known hosts, which tests change."""
    disconnect()
    path = tmp_path / "known"
    path.write_bytes(server[1].read_bytes())
    monkeypatch.setattr(host_keys, "FILES", (str(tmp_path / "missing"), str(path)))
    return path


@pytest.fixture
def url(server: tuple[str, Path], known: Path) -> str:
    return server[0]


def new_key(folder: Path, kind: str = "ed25519") -> str:
    """The type and the content of a key that no server has."""
    path = folder / kind
    run_command(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)])
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def fingerprint(known: Path) -> str:
    """That of the first key, from ssh-keygen."""
    return run_command(["ssh-keygen", "-l", "-f", str(known)]).split()[1]


def host_of(url: str) -> tuple[str, str]:
    match = re.search(r"@(.*):(\d+)/", url)
    assert match is not None
    return match[1], match[2]


def test_known_keys(url: str, known: Path, tmp_path: Path) -> None:
    """Also of a host with two keys of one type, hashed, and between lines of other kinds."""
    host, port = host_of(url)
    own = known.read_text()
    other = f"[{host}]:{port} {new_key(tmp_path)}\n"
    for text in (own, f"# comment\n\nnonsense\n{host} ssh-ed25519 A===\n{other}{own}"):
        known.write_text(text)
        disconnect()
        assert remote.read(url) == b"a"
    assert remote.read(f"simplecache::{url}") == b"a"
    known.write_text(own)
    run_command(["ssh-keygen", "-q", "-H", "-f", str(known)])
    assert host not in known.read_text()
    disconnect()
    assert remote.read(url) == b"a"


@pytest.mark.parametrize("prefix", ["", "simplecache::"])
@pytest.mark.parametrize("content", ["", "other host", "other port", "other type", "authority"])
def test_unknown_keys(url: str, known: Path, tmp_path: Path, content: str, prefix: str) -> None:
    host, port = host_of(url)
    seen, own = fingerprint(known), known.read_text().split(maxsplit=1)[1]
    known.write_text(
        {
            "": "",
            "other host": f"[example.org]:{port} {own}",
            "other port": f"{host} {own}",
            "other type": f"[{host}]:{port} {new_key(tmp_path, 'ecdsa')}\n",
            "authority": f"@cert-authority [{host}]:{port} {own}",
        }[content]
    )
    with pytest.raises(UsageError, match="not among the known hosts") as caught:
        remote.read(prefix + url)
    assert seen in caught.value.message
    assert f"ssh -p {port} {host}" in str(caught.value.hint)


def test_a_changed_key(url: str, known: Path, tmp_path: Path) -> None:
    host, port = host_of(url)
    seen = fingerprint(known)
    known.write_text(f"[{host}]:{port} {new_key(tmp_path)}\n")
    old = fingerprint(known)
    with pytest.raises(UsageError, match="has changed") as caught:
        remote.read(url)
    assert f"it is {seen}, and {known} has {old}" in caught.value.message
    # The hint's first command removes the old key.
    command = re.search(rf"ssh-keygen -f (\S+) -R '\[{host}\]:{port}'", str(caught.value.hint))
    assert command is not None
    run_command(["ssh-keygen", "-f", command[1], "-R", f"[{host}]:{port}"])
    with pytest.raises(UsageError, match="not among the known hosts"):
        remote.read(url)


def test_a_revoked_key(url: str, known: Path) -> None:
    own = known.read_text().split(maxsplit=1)[1]
    known.write_text(f"{known.read_text()}@revoked * {own}")
    with pytest.raises(UsageError, match=r"was revoked: SHA256:"):
        remote.read(url)


def test_a_policy_that_the_user_configured(
    url: str, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known.write_text("")
    options = {**fsspec.config.conf["sftp"], "host_key_policy": "auto_add"}
    monkeypatch.setitem(fsspec.config.conf, "sftp", options)
    assert remote.read(url) == b"a"


def test_an_fsspec_that_accepts_any_key(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsspec, "__version__", "2026.7.0")
    with pytest.raises(UsageError, match=r"fsspec 2026\.7\.0 accepts the key of any host"):
        remote.read(url)
    assert host_keys.options_of("https://example.org/sftp://") == {}
