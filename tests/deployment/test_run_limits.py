"""The limits of time and memory of artifacts that a deployment runs on a device."""

from dataclasses import replace

from local_device import OPTIONS, LocalWorker, deploy, function_runner

from edgeattn.deployment.results import DeploymentResult
from edgeattn.errors import DeviceError
from edgeattn.process.limits import RunLimits, limited_to, run_limits
from edgeattn.runners import isolated

LIMITS = RunLimits(seconds=7200.0, memory=2**29)


class Device(LocalWorker):
    """A device whose own limits are the default ones; records the time limit of each call."""

    def __init__(self):
        super().__init__()
        self.timeouts = {}

    def call(self, function, arguments=None, tensors=None, *, timeout=None):
        self.timeouts[function.partition(":")[2]] = timeout
        with limited_to(RunLimits()):
            return super().call(function, arguments, tensors, timeout=timeout)


def test_every_call_of_a_runtime_is_limited(home, old, monkeypatch):
    """Loading, running and measuring; this machine waits longer than the device does."""
    applied = {}

    def load(folder, artifact, worker, **_):
        applied["load_artifact"] = run_limits()
        runner = function_runner(artifact)
        run = runner.run

        def run_and_record(*arguments):
            applied["run_artifact"] = run_limits()
            return run(*arguments)

        runner.run = run_and_record
        return runner

    class Measured:
        def __init__(self, *_, **__):
            applied["measure"] = run_limits()

        def to_json(self):
            return {"artifacts": []}

    monkeypatch.setattr(isolated, "IsolatedRunner", load)
    monkeypatch.setattr("edgeattn.benchmark.latency.measure_latency", Measured)
    device = Device()
    with limited_to(LIMITS):
        result = deploy(old, device, replace(OPTIONS, measure=True))
    assert result.state == "serves now", result.error
    assert applied == dict.fromkeys(("load_artifact", "run_artifact", "measure"), LIMITS)
    assert all(device.timeouts[name] > LIMITS.seconds for name in applied)


def test_options_of_the_command(edgeattn, old, monkeypatch):
    applied = []

    def deploy_and_record(bundle, host, options, cancellation):
        applied.append(run_limits())
        return DeploymentResult(host, "failed", error=DeviceError("gone"))

    monkeypatch.setattr("edgeattn.deployment.deploy.deploy", deploy_and_record)
    hosts = ("pi@a", "pi@b")
    assert edgeattn("deploy", old.path, *hosts, "--timeout", 5, "--memory", 512).code == 5
    assert applied == [RunLimits(5.0, 512 * 2**20)] * len(hosts)
