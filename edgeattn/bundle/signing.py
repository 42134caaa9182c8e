"""Bundle signatures: OpenSSH signatures (SSHSIG) of the manifest, made by ``ssh-keygen``.

The manifest holds the hash of every other file, so a signature of it covers the whole bundle. It is
stored beside the manifest as ``manifest.json.sig`` and can be checked by hand:

    ssh-keygen -Y verify -f ALLOWED_SIGNERS -I NAME -n edgeattn-bundle \\
        -s manifest.json.sig < manifest.json

``ALLOWED_SIGNERS`` has one ``NAME KEYTYPE KEY`` per line, see ``man ssh-keygen``. With the option
``namespaces="edgeattn-bundle"`` in its line a key is accepted for bundles only.
"""

import shutil
import subprocess
from pathlib import Path

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, MAX_SIGNATURE, SIGNATURE
from edgeattn.errors import SignatureError, UsageError
from edgeattn.files import reserved

NAMESPACE = "edgeattn-bundle"
TIMEOUT = 60  # seconds
_SIGN = "Sign it with: edgeattn sign BUNDLE --key ~/.ssh/id_ed25519"


def sign(bundle: Bundle, key: Path) -> Path:
    """Sign ``bundle`` and return the path of the signature; an existing one is replaced.

    ``key`` is a private key, or a public key whose private key an ssh agent holds. Raises
    :class:`UsageError` if it cannot be used.
    """
    if not key.is_file():
        raise UsageError(f"No such key: {key}", hint="Create one with: ssh-keygen -t ed25519")
    target = bundle.path / SIGNATURE
    with reserved(target) as folder:
        copy = folder / MANIFEST
        copy.write_bytes((bundle.path / MANIFEST).read_bytes())
        # No time limit: ssh-keygen may ask for a passphrase on the terminal.
        process = _ssh_keygen("sign", "-f", str(key.absolute()), str(copy), timeout=None)
        signature = copy.with_name(SIGNATURE)
        if process.returncode or not signature.is_file():
            raise UsageError(
                f"{key} cannot sign: {_last_line(process)}",
                hint="Use a private key of ssh-keygen, or a public key that your ssh agent holds.",
            )
        signature.rename(target)
    return target


def check_signature(bundle: Bundle, allowed: Path) -> str:
    """The name of the signer of ``bundle`` in the file of ``allowed`` signers.

    Raises :class:`SignatureError` if the bundle is unsigned, its manifest was changed after it was
    signed, or the signer is not allowed.
    """
    if not allowed.is_file():
        raise UsageError(f"No such file of allowed signers: {allowed}")
    signature = bundle.path / SIGNATURE
    if not signature.is_file():
        raise SignatureError(f"{bundle.path} is not signed.", hint=_SIGN)
    if signature.stat().st_size > MAX_SIGNATURE:
        raise SignatureError(
            f"{signature.name} of {bundle.path} is too large for a signature.", hint=_SIGN
        )
    manifest = (bundle.path / MANIFEST).read_bytes()
    files = ("-f", str(allowed.absolute()), "-s", str(signature.absolute()))
    principals = _ssh_keygen("find-principals", *files)
    # One key may have several names, separated by commas. Any of them will do.
    signer = principals.stdout.decode("utf-8", "replace").partition("\n")[0].split(",")[0].strip()
    if principals.returncode or not signer:
        raise SignatureError(
            f"The signer of {bundle.path} is not in {allowed.name}: {_last_line(principals)}",
            hint="If you trust the signer, add their public key to that file.",
        )
    process = _ssh_keygen("verify", *files, "-I", signer, manifest=manifest)
    if process.returncode:
        raise SignatureError(
            f"The signature of {bundle.path} does not match its manifest: {_last_line(process)}",
            hint="Copy the bundle again: it was changed after it was signed.",
        )
    return signer


def _ssh_keygen(
    action: str, *arguments: str, manifest: bytes = b"", timeout: float | None = TIMEOUT
) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise UsageError(
            "ssh-keygen is not installed.", hint="Install it: sudo apt install openssh-client"
        )
    # find-principals takes no namespace.
    namespace = () if action == "find-principals" else ("-n", NAMESPACE)
    try:
        return subprocess.run(
            [program, "-Y", action, *namespace, *arguments],
            input=manifest,
            capture_output=True,
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"ssh-keygen did not finish within {TIMEOUT} s.") from error


def _last_line(process: subprocess.CompletedProcess[bytes]) -> str:
    lines = (process.stderr + process.stdout).decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"ssh-keygen ended with exit status {process.returncode}"
