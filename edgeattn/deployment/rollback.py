"""The previous version of a device serves again: ``edgeattn deploy --rollback``."""

import hashlib
from pathlib import Path

from edgeattn.bundle.manifest import MANIFEST, SIGNATURE
from edgeattn.deployment.deploy import DeploymentOptions, open_folder
from edgeattn.deployment.on_device import steps
from edgeattn.deployment.parallel import Cancellation
from edgeattn.deployment.replies import parse_previous_version, parse_rollback
from edgeattn.deployment.results import FAILED, ROLLED_BACK, DeploymentResult
from edgeattn.errors import EdgeattnError, SignatureError
from edgeattn.targets import ssh
from edgeattn.targets.connection import Connection


def roll_back(
    destination: str, options: DeploymentOptions, cancellation: Cancellation | None = None
) -> DeploymentResult:
    """Let the previous version on a host serve again; errors are as in :func:`deploy`."""
    ssh.parse_destination(destination)
    try:
        with (
            ssh.connect(destination, options.config) as host,
            (cancellation or Cancellation()).registered(
                ssh.worker_on(host, options.python)
            ) as worker,
        ):
            return roll_back_over(Connection(worker, host), options)
    except EdgeattnError as error:
        return DeploymentResult(destination, FAILED, error=error)
    except Exception as error:
        fault = EdgeattnError(f"{type(error).__name__}: {error}")
        return DeploymentResult(destination, FAILED, error=fault)


def roll_back_over(connection: Connection, options: DeploymentOptions) -> DeploymentResult:
    """The steps of a rollback, over an open connection."""
    before = open_folder(connection, options)
    manifest = None
    if options.allowed_signers is not None:
        manifest = _signed_manifest(connection, options.allowed_signers)
    old, new = parse_rollback(connection.call(steps.roll_back, manifest=manifest))
    return DeploymentResult(connection.host.destination, ROLLED_BACK, before.folder, new, old)


def _signed_manifest(connection: Connection, allowed: Path) -> str:
    """The SHA-256 of the previous version's manifest, whose signature is checked here."""
    from edgeattn.bundle.signing import check_manifest

    version, files = parse_previous_version(
        *connection.call_with_tensors(steps.previous_version, {})
    )
    name = f"{version} on {connection.host.destination}"
    try:
        # Only the bytes matter: nothing is parsed before they are verified.
        check_manifest(name, files[MANIFEST], files.get(SIGNATURE), allowed)
    except SignatureError as error:
        raise SignatureError(
            f"{error.message} The current version still serves.",
            hint="Deploy a signed bundle, or roll back without --require-signature.",
        ) from error
    return hashlib.sha256(files[MANIFEST]).hexdigest()
