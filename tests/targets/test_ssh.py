"""Over ssh: what is given to ssh, what it says, and commands through a stand-in of it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import artifacts
import numpy as np
import pytest

from edgeattn.errors import DeviceError, UsageError
from edgeattn.targets import ssh
from edgeattn.targets.ssh import SSHHost

# In the place of ssh: the words after the host go to a shell, as sshd hands them on, in another
# home folder. What it was given is kept, a line a call.
STAND_IN = """#!{python}
import json, os, sys
given = sys.argv[1:]
with open({log!r}, "a") as file:
    file.write(json.dumps(given) + "\\n")
if "-O" in given:
    sys.exit(0)
host, command = given[given.index("--") + 1:]
if "unknown" in host:
    sys.exit("Host key verification failed.")
home = os.path.join({homes!r}, host.rpartition("@")[2])
os.makedirs(home, exist_ok=True)
os.environ.update(HOME=home, PATH={path!r} + ":/usr/bin:/bin")
os.environ.pop("PYTHONPATH", None)
os.chdir(home)
os.execvp("sh", ["sh", "-c", command])
"""


class Network:
    def __init__(self, folder: Path) -> None:
        self.homes = folder / "homes"
        self.log = folder / "ssh.log"
        self.bin, self.path = folder / "bin", folder / "device-bin"
        for made in (self.homes, self.bin, self.path):
            made.mkdir()
        told = {"log": str(self.log), "homes": str(self.homes), "path": str(self.path)}
        script(self.bin / "ssh", STAND_IN.format(python=sys.executable, **told))
        self.has_python(f'exec {shlex.quote(sys.executable)} "$@"')

    def has_python(self, line: str) -> None:
        script(self.path / "python3", f"#!/bin/sh\n{line}\n")

    @property
    def given(self) -> list[list[str]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def network(tmp_path, monkeypatch):
    folder = tmp_path / "network"
    folder.mkdir()
    made = Network(folder)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    return made


# What a host may be


@pytest.mark.parametrize(
    "host",
    [
        *("pi@raspberrypi.local", "raspberrypi", "pi@192.168.1.7", "edge_01", "a.b-c@d-e.f"),
        *("ssh://pi@raspberrypi:2222", "ssh://raspberrypi", "pi@[fe80::1]", "pi@fe80::1"),
        "ssh://pi@[fe80::1%eth0]:22",
    ],
)
def test_hosts(host):
    assert ssh.parse(host) == host


@pytest.mark.parametrize(
    "host",
    [
        *("-oProxyCommand=reboot", "pi@-oProxyCommand=reboot", "-pi@host", "ssh://-oX=y", ""),
        *("pi@host reboot", "pi@host;reboot", "pi@host\nreboot", "pi@$(reboot)", "pi@`x`", "pi@"),
        *("ssh://pi@host:2222/etc", "http://pi@host", "pi@host|x", "pi@@host", "pì@host"),
    ],
)
def test_what_is_no_host(host):
    with pytest.raises(UsageError, match="Not a host"):
        ssh.parse(host)


def test_hosts_reach_no_ssh_unchecked(edgeattn, network, dense_bundle):
    for command in (
        ("doctor", "--", "-oProxyCommand=reboot"),
        ("deploy", "dense.edge", "--", "-oProxyCommand=reboot"),
        ("validate", "dense.edge", "--on", "-oProxyCommand=reboot"),
        ("bench", "dense.edge", "--on", "-oProxyCommand=reboot"),
    ):
        told = edgeattn(*command)
        assert told.code == 2
        assert "Not a host" in told.err
    assert not network.log.exists()


# What ssh is given


def test_options():
    command = SSHHost("pi@host", ("-F", "config")).command("echo", "a b", "$HOME; reboot")
    assert command[:4] == ("ssh", "-T", "-F", "config")
    assert command[-3:] == ("--", "pi@host", "echo 'a b' '$HOME; reboot'")
    said = dict(word.split("=", 1) for word in command if "=" in word)
    assert (said["BatchMode"], said["StrictHostKeyChecking"]) == ("yes", "yes")
    assert (said["ForwardAgent"], said["ForwardX11"]) == ("no", "no")


@pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh here")
def test_real_ssh_takes_them(tmp_path):
    """-G prints what ssh made of its arguments; a config that switches the check off loses."""
    config = tmp_path / "config"
    config.write_text("Host *\n  StrictHostKeyChecking no\n  ForwardAgent yes\n")
    with ssh.connected("pi@host.invalid", config) as remote:
        words = remote.command("true")
        told = subprocess.run(
            [words[0], "-G", *words[1:]], capture_output=True, text=True, check=True
        ).stdout
    said = dict(line.partition(" ")[::2] for line in told.splitlines())
    assert (said["user"], said["hostname"]) == ("pi", "host.invalid")
    assert said["stricthostkeychecking"] in ("true", "yes")
    assert (said["batchmode"], said["forwardagent"]) == ("yes", "no")
    assert (said["controlmaster"], said["controlpersist"]) == ("auto", str(ssh.PERSIST))


def test_a_path_with_anything_in_it_is_one_word(network):
    there = network.homes / "host" / "it's a $(touch broken) `env`"
    there.mkdir(parents=True)
    script(there / "python", '#!/bin/sh\nprintf "%s|" "$@"\n')
    with ssh.connected("pi@host") as remote:
        python = f"~/{there.name}/python"
        said = remote.run(remote.python(python, "-c", "a 'b' $(touch broken)"))
    assert said.decode() == "-c|a 'b' $(touch broken)|"
    assert not (network.homes / "host" / "broken").exists()


def test_the_environment_comes_before_python3(network):
    own = network.homes / "host" / "edge/bin"
    own.mkdir(parents=True)
    with ssh.connected("pi@host") as remote:
        command = remote.python(None, "-c", "import sys; print(1)")
        assert remote.run(command) == b"1\n"
        script(own / "python", "#!/bin/sh\necho own\n")
        assert remote.run(command) == b"own\n"


def test_connections_end_with_the_work(network):
    with ssh.connected("pi@host") as remote:
        remote.run(remote.command("true"))
        path = next(w.partition("=")[2] for w in remote.options if w.startswith("ControlPath="))
        assert stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700
        assert len(path) < 60
    assert not Path(path).parent.exists()
    assert "-O" in network.given[-1]


# What ssh says


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("Host key verification failed.", "ssh pi@host"),
        ("pi@host: Permission denied (publickey,password).", "ssh-copy-id pi@host"),
        ("ssh: Could not resolve hostname x: Name or service not known", "Its address"),
        ("ssh: connect to host x port 22: Connection refused", "raspi-config"),
        ("ssh: connect to host x port 22: Connection timed out", "in this network"),
        ("/usr/bin/python3: No module named edgeattn", "deploy BUNDLE pi@host --install"),
        ("bash: line 1: python3: command not found", "apt install python3"),
        ("Unknown option: -P", "3.11"),
        ("something new", "ssh pi@host true"),
    ],
)
def test_advice(said, advice):
    error = SSHHost("pi@host").failed(f"a warning of before\n{said}\n")
    assert error.message == f"pi@host: {said}"
    assert advice in error.hint


def test_an_unknown_key_ends_it(edgeattn, network, dense_bundle):
    for command in (("doctor",), ("validate", "dense.edge", "--on"), ("deploy", "dense.edge")):
        told = edgeattn(*command, "pi@unknown")
        assert told.code == 5
        assert "Host key verification failed" in told.out + told.err
        assert "ssh-keygen -lf" in told.out + told.err


def test_what_does_not_come_back(network):
    with ssh.connected("pi@host") as remote, pytest.raises(DeviceError, match="within 0"):
        remote.run(remote.command("sleep", "5"), timeout=0.1)


def test_no_ssh_here(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DeviceError, match="no ssh here"), ssh.connected("pi@host"):
        pass


# Commands, through the stand-in


def test_doctor(edgeattn, network):
    there = edgeattn("doctor", "pi@host", "--json")
    here = edgeattn("doctor", "--json")
    assert (there.code, there.err) == (0, "")
    assert list(there.document) == list(here.document)
    assert there.document["runtimes"] == here.document["runtimes"]
    same = ("machine", "cpu", "cores", "os", "libc", "python", "memory_bytes")
    for key in same:
        assert there.document["device"][key] == here.document["device"][key], key


def test_doctor_of_a_device_without_edgeattn(edgeattn, network):
    network.has_python(
        f'case "$*" in *edgeattn*) echo "python3: No module named edgeattn" >&2; exit 1;; esac\n'
        f'exec {shlex.quote(sys.executable)} -I "$@"'
    )
    told = edgeattn("doctor", "pi@host", "--json")
    assert told.code == 5
    assert [item["state"] for item in told.document["runtimes"]] == ["not checked", "not checked"]
    assert told.document["device"]["python"].startswith("3.")
    assert "--install" in told.document["findings"][0]["remedy"]
    assert "not checked" in edgeattn("doctor", "pi@host").out


def test_doctor_of_a_device_without_python(edgeattn, network):
    told = edgeattn("doctor", "pi@host", "--python", "no/such/python")
    assert told.code == 5
    assert "no/such/python" in told.err


def test_doctor_takes_no_python_for_here(edgeattn):
    assert edgeattn("doctor", "--python", "x").code == 2


def test_validate_on(edgeattn, network, dense_bundle):
    told = edgeattn("validate", "dense.edge", "--on", "pi@host", "--json")
    assert (told.code, told.err, told.document["verdict"]) == (0, "", "pass")
    for item in told.document["artifacts"]:
        assert item["stages"]["device"] == "pass"
        (found,) = [c for c in item["checks"] if c["stage"] == "device"]
        # Sums without rounding: bit for bit.
        assert (found["metric"], found["value"]) == ("difference_from_host", 0.0)
    text = edgeattn("validate", "dense.edge", "--on", "pi@host").out
    assert "Not run: task." in text
    # The second time nothing had to be sent; what was judged stays there.
    assert len(list(network.homes.glob("host/.cache/edgeattn/judged/*"))) == 1


def test_validate_on_can_fail(edgeattn, network, tmp_path):
    bias = artifacts.BIAS + np.float32(1e-2)
    artifacts.write_dense_bundle(tmp_path / "wrong.edge", bias=bias)
    told = edgeattn("validate", "wrong.edge", "--on", "pi@host", "--json")
    assert (told.code, told.document["verdict"]) == (1, "fail")
    assert {item["stages"]["device"] for item in told.document["artifacts"]} == {"pass"}


def test_validate_in_another_python(edgeattn, dense_bundle):
    told = edgeattn("validate", "dense.edge", "--python", sys.executable, "--json")
    assert (told.code, told.document["verdict"]) == (0, "pass")
    assert {item["stages"]["device"] for item in told.document["artifacts"]} == {"pass"}


@pytest.mark.parametrize("command", ["validate", "bench"])
@pytest.mark.parametrize("where", [(), ("--on", "pi@host")])
def test_a_python_that_is_none(edgeattn, network, dense_bundle, command, where):
    told = edgeattn(command, "dense.edge", *where, "--python", "no/such/python")
    assert told.code == 5
    assert "no/such/python" in told.err


def test_bench_on(edgeattn, network, dense_bundle):
    told = edgeattn(
        "bench", "dense.edge", "--on", "pi@host", "--threads", "1", "--runs", "2", "--json"
    )
    assert (told.code, told.err, told.document["place"]) == (0, "", "pi@host")
    assert [item["runs"] for item in told.document["artifacts"]] == [2, 2]


def test_deploy_and_roll_back(edgeattn, network, tmp_path):
    artifacts.write_dense_bundle(tmp_path / "dense.edge", count=5)
    told = edgeattn("deploy", "dense.edge", "pi@host", "--seconds", "0", "--json")
    assert (told.code, told.err) == (0, "")
    (host,) = told.document["hosts"]
    assert (host["state"], host["verdict"], host["previous"]) == ("serves now", "pass", None)
    assert [item["runs"] for item in host["bench"]["artifacts"]] == [64, 64]
    report = json.loads((tmp_path / "dense.edge.pi@host.json").read_text("utf-8"))
    assert report == host
    assert "<html" in (tmp_path / "dense.edge.pi@host.html").read_text("utf-8")
    current = network.homes / "host/edgeattn/dense/current"
    first = current.resolve()
    # A program on the device.
    import edgeattn as library

    model = library.load(current)
    assert model([1, 2, 3])["score"].tolist() == artifacts.dense(np.float32([[1, 2, 3]])).tolist()
    artifacts.write_dense_bundle(tmp_path / "dense.edge", count=6)
    told = edgeattn("deploy", "dense.edge", "pi@host", "--no-bench")
    assert told.code == 0
    assert "serves now" in told.out
    assert f"Programs there open {current}" in told.out
    assert current.resolve() != first
    told = edgeattn("deploy", "dense.edge", "pi@host", "--rollback")
    assert (told.code, "rolled back" in told.out) == (0, True)
    assert current.resolve() == first
    told = edgeattn("deploy", "dense.edge", "pi@host", "--rollback")
    assert (told.code, "no earlier version" in told.out) == (5, True)


def test_several_hosts(edgeattn, network, dense_bundle, tmp_path):
    (tmp_path / "hosts").write_text("# the kitchen\npi@one\n\npi@unknown  # not known yet\n")
    told = edgeattn("deploy", "dense.edge", "pi@two", "--hosts", "hosts", "--no-bench", "--json")
    assert told.code == 5
    assert [(h["host"], h["state"], h["exit_code"]) for h in told.document["hosts"]] == [
        ("pi@two", "serves now", 0),
        ("pi@one", "serves now", 0),
        ("pi@unknown", "failed", 5),
    ]
    text = edgeattn("deploy", "dense.edge", "--hosts", "hosts", "--no-bench").out
    assert "pi@unknown: Host key verification failed" in " ".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("dense.edge",), "No host"),
        (("dense.edge", "pi@a", "pi@a"), "named twice"),
        (("dense.edge", "--hosts", "none"), "cannot be read"),
        (("none.edge", "pi@a"), "No such bundle"),
        (("dense.edge", "pi@a", "--wheels", "x"), "--install"),
        (("dense.edge", "pi@a", "--scheme", "int8"), "has no artifact for int8"),
        (("dense.edge", "pi@a", "--ssh-config", "none"), "No such file"),
    ],
)
def test_deploy_as_it_cannot_be(edgeattn, network, dense_bundle, arguments, said):
    told = edgeattn("deploy", *arguments)
    assert told.code == 2
    assert said in told.out + told.err


def test_ctrl_c_leaves_what_served(edgeattn_process, network, tmp_path):
    artifacts.write_dense_bundle(tmp_path / "dense.edge", count=5)
    assert edgeattn_process("deploy", "dense.edge", "pi@host", "--no-bench").code == 0
    current = network.homes / "host/edgeattn/dense/current"
    first = current.resolve()
    artifacts.write_dense_bundle(tmp_path / "dense.edge", count=6)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "edgeattn", "deploy", "dense.edge", "pi@host"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # It measures for ten seconds, when the new version lies there already.
    deadline = time.monotonic() + 30
    while len(list(current.parent.glob("versions/*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Interrupted" in err
    assert "Traceback" not in err
    assert current.resolve() == first
    assert edgeattn_process("deploy", "dense.edge", "pi@host", "--no-bench").code == 0
    assert current.resolve() != first
