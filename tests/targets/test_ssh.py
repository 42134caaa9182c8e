"""Commands over ssh: the arguments of ssh, its errors, and commands run through a replacement."""

from __future__ import annotations

import json
import os
import platform
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

# Replaces ssh: passes the command to a shell, as sshd does, in another home folder, and logs its
# arguments, one line per call. On the host "elsewhere", commands start in another folder than that.
FAKE_SSH = """#!{python}
import json, os, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as file:
    file.write(json.dumps(arguments) + "\\n")
if "-O" in arguments:
    sys.exit(0)
host, command = arguments[arguments.index("--") + 1:]
if "unknown" in host:
    sys.exit("Host key verification failed.")
home = os.path.join({homes!r}, host.rpartition("@")[2])
os.makedirs(home, exist_ok=True)
os.environ.update(HOME=home, PATH={path!r} + ":/usr/bin:/bin")
os.environ.pop("PYTHONPATH", None)
os.chdir("/" if host.endswith("elsewhere") else home)
os.execvp("sh", ["sh", "-c", command])
"""


class Network:
    def __init__(self, folder: Path) -> None:
        self.homes = folder / "homes"
        self.log = folder / "ssh.log"
        self.bin, self.path = folder / "bin", folder / "device-bin"
        for path in (self.homes, self.bin, self.path):
            path.mkdir()
        paths = {"log": str(self.log), "homes": str(self.homes), "path": str(self.path)}
        write_script(self.bin / "ssh", FAKE_SSH.format(python=sys.executable, **paths))
        self.set_python(f'exec {shlex.quote(sys.executable)} "$@"')

    def set_python(self, line: str) -> None:
        write_script(self.path / "python3", f"#!/bin/sh\n{line}\n")

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def write_script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def network(tmp_path, monkeypatch):
    folder = tmp_path / "network"
    folder.mkdir()
    devices = Network(folder)
    monkeypatch.setenv("PATH", f"{devices.bin}:{os.environ['PATH']}")
    return devices


# Destinations


@pytest.mark.parametrize(
    "host",
    [
        *("pi@raspberrypi.local", "raspberrypi", "pi@192.168.1.7", "edge_01", "a.b-c@d-e.f"),
        *("ssh://pi@raspberrypi:2222", "ssh://raspberrypi", "pi@[fe80::1]", "pi@fe80::1"),
        "ssh://pi@[fe80::1%eth0]:22",
    ],
)
def test_valid_destinations(host):
    assert ssh.parse_destination(host) == host


@pytest.mark.parametrize(
    "host",
    [
        *("-oProxyCommand=reboot", "pi@-oProxyCommand=reboot", "-pi@host", "ssh://-oX=y", ""),
        *("pi@host reboot", "pi@host;reboot", "pi@host\nreboot", "pi@$(reboot)", "pi@`x`", "pi@"),
        *("ssh://pi@host:2222/etc", "http://pi@host", "pi@host|x", "pi@@host", "pì@host"),
    ],
)
def test_invalid_destinations(host):
    with pytest.raises(UsageError, match="Not a host"):
        ssh.parse_destination(host)


def test_commands_pass_no_invalid_destination_to_ssh(edgeattn, network, dense_bundle):
    for command in (
        ("doctor", "--", "-oProxyCommand=reboot"),
        ("deploy", "dense.edge", "--", "-oProxyCommand=reboot"),
        ("validate", "dense.edge", "--on", "-oProxyCommand=reboot"),
        ("bench", "dense.edge", "--on", "-oProxyCommand=reboot"),
    ):
        result = edgeattn(*command)
        assert result.code == 2
        assert "Not a host" in result.err
    assert not network.log.exists()


# Arguments of ssh


def test_arguments():
    command = SSHHost("pi@host", ("-F", "config")).command("echo", "a b", "$HOME; reboot")
    assert command[:4] == ("ssh", "-T", "-F", "config")
    assert command[-3:] == ("--", "pi@host", "echo 'a b' '$HOME; reboot'")
    options = dict(item.split("=", 1) for item in command if "=" in item)
    assert (options["BatchMode"], options["StrictHostKeyChecking"]) == ("yes", "yes")
    assert (options["ForwardAgent"], options["ForwardX11"]) == ("no", "no")


@pytest.mark.skipif(shutil.which("ssh") is None, reason="this machine has no ssh")
def test_real_ssh_accepts_the_options(tmp_path):
    """`ssh -G` prints the resulting options; the user's configuration cannot weaken them."""
    config = tmp_path / "config"
    config.write_text("Host *\n  StrictHostKeyChecking no\n  ForwardAgent yes\n")
    with ssh.connect("pi@host.invalid", config) as host:
        command = host.command("true")
        output = subprocess.run(
            [command[0], "-G", *command[1:]], capture_output=True, text=True, check=True
        ).stdout
    options = dict(line.partition(" ")[::2] for line in output.splitlines())
    assert (options["user"], options["hostname"]) == ("pi", "host.invalid")
    assert options["stricthostkeychecking"] in ("true", "yes")
    assert (options["batchmode"], options["forwardagent"]) == ("yes", "no")
    assert (options["controlmaster"], options["controlpersist"]) == ("auto", str(ssh.PERSIST))


def test_paths_are_quoted(network):
    folder = network.homes / "host" / "it's a $(touch broken) `env`"
    folder.mkdir(parents=True)
    write_script(folder / "python", '#!/bin/sh\nprintf "%s|" "$@"\n')
    with ssh.connect("pi@host") as host:
        python = f"~/{folder.name}/python"
        output = host.run(host.python_command(python, "-c", "a 'b' $(touch broken)"))
    assert output.decode() == "-c|a 'b' $(touch broken)|"
    assert not (network.homes / "host" / "broken").exists()


def test_the_environment_takes_precedence_over_python3(network):
    own = network.homes / "host" / "edge/bin"
    own.mkdir(parents=True)
    with ssh.connect("pi@host") as host:
        command = host.python_command(None, "-c", "import sys; print(1)")
        assert host.run(command) == b"1\n"
        write_script(own / "python", "#!/bin/sh\necho own\n")
        assert host.run(command) == b"own\n"


@pytest.mark.parametrize("python", [None, "edge/bin/python", "~/edge/bin/python"])
def test_the_working_folder_of_ssh_does_not_matter(network, python):
    """Otherwise, `deploy --install` installs into the home folder and then misses edgeattn."""
    own = network.homes / "elsewhere" / "edge/bin"
    own.mkdir(parents=True)
    write_script(own / "python", "#!/bin/sh\npwd\n")
    with ssh.connect("pi@elsewhere") as host:
        assert host.run(host.python_command(python, "-c", "pass")) == b"/\n"
        assert host.run(host.python_command("python3", "-c", "print(1)")) == b"1\n"
        (own / "python").unlink()
        if python is None:
            assert host.run(host.python_command(None, "-c", "print(1)")) == b"1\n"


def test_shared_connection_is_closed(network):
    with ssh.connect("pi@host") as host:
        host.run(host.command("true"))
        path = next(w.partition("=")[2] for w in host.options if w.startswith("ControlPath="))
        assert stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700
        assert len(path) < 60
    assert not Path(path).parent.exists()
    assert "-O" in network.calls[-1]


# Errors


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("Host key verification failed.", "ssh pi@host"),
        ("pi@host: Permission denied (publickey,password).", "ssh-copy-id pi@host"),
        ("ssh: Could not resolve hostname x: Name or service not known", "IP address"),
        ("ssh: connect to host x port 22: Connection refused", "raspi-config"),
        ("ssh: connect to host x port 22: Connection timed out", "in the same network"),
        ("/usr/bin/python3: No module named edgeattn", "deploy BUNDLE pi@host --install"),
        ("bash: line 1: python3: command not found", "apt install python3"),
        ("Unknown option: -P", "3.11"),
        ("something new", "ssh pi@host true"),
    ],
)
def test_hints(line, hint):
    error = SSHHost("pi@host").error_from(f"an earlier warning\n{line}\n")
    assert error.message == f"pi@host: {line}"
    assert hint in error.hint


def test_unknown_host_key(edgeattn, network, dense_bundle):
    for command in (("doctor",), ("validate", "dense.edge", "--on"), ("deploy", "dense.edge")):
        result = edgeattn(*command, "pi@unknown")
        assert result.code == 5
        assert "Host key verification failed" in result.out + result.err
        assert "ssh-keygen -lf" in result.out + result.err


def test_timeout(network):
    with ssh.connect("pi@host") as host, pytest.raises(DeviceError, match="within 0"):
        host.run(host.command("sleep", "600"), timeout=0.1)


def test_unexpected_output_of_a_script(network):
    network.set_python("echo Welcome")
    with ssh.connect("pi@host") as host, pytest.raises(DeviceError, match="unexpected output"):
        ssh.system_snapshot(host)


def test_no_ssh(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DeviceError, match="has no ssh"), ssh.connect("pi@host"):
        pass


# Commands, through the replacement of ssh


def test_doctor(edgeattn, network):
    remote = edgeattn("doctor", "pi@host", "--json")
    local = edgeattn("doctor", "--json")
    assert (remote.code, remote.err) == (0, "")
    assert list(remote.document) == list(local.document)
    assert remote.document["runtimes"] == local.document["runtimes"]
    for key in ("machine", "cpu", "cores", "os", "libc", "python", "memory_bytes"):
        assert remote.document["device"][key] == local.document["device"][key], key


def test_doctor_of_a_device_without_edgeattn(edgeattn, network):
    network.set_python(
        f'case "$*" in *edgeattn*) echo "python3: No module named edgeattn" >&2; exit 1;; esac\n'
        f'exec {shlex.quote(sys.executable)} -I "$@"'
    )
    result = edgeattn("doctor", "pi@host", "--json")
    assert result.code == 5
    assert [item["state"] for item in result.document["runtimes"]] == ["not checked"] * 2
    assert result.document["device"]["python"].startswith("3.")
    assert "--install" in result.document["findings"][0]["remedy"]
    assert "not checked" in edgeattn("doctor", "pi@host").out


def test_doctor_of_a_device_without_python(edgeattn, network):
    result = edgeattn("doctor", "pi@host", "--python", "no/such/python")
    assert result.code == 5
    assert "no/such/python" in result.err


def test_doctor_of_this_machine_accepts_no_python(edgeattn):
    assert edgeattn("doctor", "--python", "x").code == 2


def test_validate_on_a_host(edgeattn, network, dense_bundle):
    result = edgeattn("validate", "dense.edge", "--on", "pi@host", "--json")
    assert (result.code, result.err, result.document["verdict"]) == (0, "", "pass")
    for item in result.document["artifacts"]:
        assert item["stages"]["device"] == "pass"
        (check,) = [c for c in item["checks"] if c["stage"] == "device"]
        # The sums of this model involve no rounding, so the bits are equal.
        assert (check["metric"], check["value"]) == ("difference_from_host", 0.0)
    assert "Not run: task." in edgeattn("validate", "dense.edge", "--on", "pi@host").out
    # The second run uses the files that the first one sent.
    assert len(list(network.homes.glob("host/.cache/edgeattn/judged/*"))) == 1


def test_validate_on_a_host_fails(edgeattn, network, tmp_path):
    bias = artifacts.BIAS + np.float32(1e-2)
    artifacts.write_dense_bundle(tmp_path / "wrong.edge", bias=bias)
    result = edgeattn("validate", "wrong.edge", "--on", "pi@host", "--json")
    assert (result.code, result.document["verdict"]) == (1, "fail")
    assert {item["stages"]["device"] for item in result.document["artifacts"]} == {"pass"}


def test_validate_in_another_python(edgeattn, dense_bundle):
    result = edgeattn("validate", "dense.edge", "--python", sys.executable, "--json")
    assert (result.code, result.document["verdict"]) == (0, "pass")
    assert {item["stages"]["device"] for item in result.document["artifacts"]} == {"pass"}


@pytest.mark.parametrize("command", ["validate", "bench"])
@pytest.mark.parametrize("options", [(), ("--on", "pi@host")])
def test_missing_python(edgeattn, network, dense_bundle, command, options):
    result = edgeattn(command, "dense.edge", *options, "--python", "no/such/python")
    assert result.code == 5
    assert "no/such/python" in result.err


def test_bench_on_a_host(edgeattn, network, dense_bundle):
    result = edgeattn(
        "bench", "dense.edge", "--on", "pi@host", "--threads", "1", "--runs", "2", "--json"
    )
    assert (result.code, result.err, result.document["place"]) == (0, "", "pi@host")
    assert [item["runs"] for item in result.document["artifacts"]] == [2, 2]
    assert result.document["device"]["python"] == platform.python_version()


def test_deploy_and_roll_back(edgeattn, network, tmp_path):
    artifacts.write_dense_bundle(tmp_path / "dense.edge", count=5)
    result = edgeattn("deploy", "dense.edge", "pi@host", "--seconds", "0", "--json")
    assert (result.code, result.err) == (0, "")
    (host,) = result.document["hosts"]
    assert (host["state"], host["verdict"], host["previous"]) == ("serves now", "pass", None)
    assert [item["runs"] for item in host["bench"]["artifacts"]] == [64, 64]
    report = json.loads((tmp_path / "dense.edge.pi@host.json").read_text("utf-8"))
    assert report == host
    assert "<html" in (tmp_path / "dense.edge.pi@host.html").read_text("utf-8")
    current = network.homes / "host/edgeattn/dense/current"
    first = current.resolve()
    # As a program on the device would use it.
    import edgeattn as library

    model = library.load(current)
    assert model([1, 2, 3])["score"].tolist() == artifacts.dense(np.float32([[1, 2, 3]])).tolist()
    artifacts.write_dense_bundle(tmp_path / "dense.edge", count=6)
    result = edgeattn("deploy", "dense.edge", "pi@host", "--no-bench")
    assert result.code == 0
    assert "serves now" in result.out
    assert f"Programs on the device open {current}" in result.out
    assert current.resolve() != first
    result = edgeattn("deploy", "dense.edge", "pi@host", "--rollback")
    assert (result.code, "rolled back" in result.out) == (0, True)
    assert current.resolve() == first
    result = edgeattn("deploy", "dense.edge", "pi@host", "--rollback")
    assert (result.code, "no earlier version" in result.out) == (5, True)


@pytest.mark.long
def test_deploy_to_several_hosts(edgeattn, network, dense_bundle, tmp_path):
    (tmp_path / "hosts").write_text("# the kitchen\npi@one\n\npi@unknown  # not known yet\n")
    result = edgeattn("deploy", "dense.edge", "pi@two", "--hosts", "hosts", "--no-bench", "--json")
    assert result.code == 5
    assert [(h["host"], h["state"], h["exit_code"]) for h in result.document["hosts"]] == [
        ("pi@two", "serves now", 0),
        ("pi@one", "serves now", 0),
        ("pi@unknown", "failed", 5),
    ]
    text = edgeattn("deploy", "dense.edge", "--hosts", "hosts", "--no-bench").out
    assert "pi@unknown: Host key verification failed" in " ".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dense.edge",), "No host"),
        (("dense.edge", "pi@a", "pi@a"), "listed twice"),
        (("dense.edge", "--hosts", "none"), "cannot be read"),
        (("none.edge", "pi@a"), "No such bundle"),
        (("dense.edge", "pi@a", "--wheels", "x"), "--install"),
        (("dense.edge", "pi@a", "--scheme", "int8"), "has no artifact for int8"),
        (("dense.edge", "pi@a", "--ssh-config", "none"), "No such file"),
    ],
)
def test_deploy_usage_errors(edgeattn, network, dense_bundle, arguments, message):
    result = edgeattn("deploy", *arguments)
    assert result.code == 2
    assert message in result.out + result.err


@pytest.mark.long
def test_ctrl_c_keeps_the_current_version(edgeattn_process, network, tmp_path):
    artifacts.write_dense_bundle(tmp_path / "dense.edge", count=5)
    assert edgeattn_process("deploy", "dense.edge", "pi@host", "--no-bench").code == 0
    current = network.homes / "host/edgeattn/dense/current"
    first = current.resolve()
    artifacts.write_dense_bundle(tmp_path / "dense.edge", count=6)
    process = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "edgeattn"),
            *("deploy", "dense.edge", "pi@host", "--seconds", "3600"),
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A parent in the background may have the signal ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # Once the new version exists it is validated, then measured for an hour.
    while len(list(current.parent.glob("versions/*"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "Interrupted" in err
    assert "Traceback" not in err
    assert current.resolve() == first
    assert edgeattn_process("deploy", "dense.edge", "pi@host", "--no-bench").code == 0
    assert current.resolve() != first


def test_a_device_that_sends_without_end(network):
    host = SSHHost("pi@device", program=str(network.bin / "ssh"))
    with pytest.raises(DeviceError, match="sent more than"):
        host.run(host.command("yes"))
    with pytest.raises(DeviceError, match="device: last"):
        host.run(
            host.command(
                "sh", "-c", "head -c 30000000 /dev/zero >&2; echo >&2; echo last >&2; exit 1"
            )
        )
