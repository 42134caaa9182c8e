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
import tempfile
from pathlib import Path

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST, MAX_SIGNATURE, SIGNATURE
from edgeattn.bundle.verified_file import read_signature
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
        copy.write_bytes(bundle.manifest_bytes())
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


def open_signed(path: Path, allowed: Path) -> Bundle:
    """Open a bundle; its manifest is not even parsed unless one of the ``allowed`` signed it.

    Raises :class:`SignatureError` as :func:`check_signature`, and the errors of ``Bundle.open``.
    """
    return Bundle.open(
        path,
        lambda name, manifest, signature: check_manifest(name, manifest, signature, allowed),
    )


def check_signature(bundle: Bundle, allowed: Path) -> str:
    """The name of the signer of ``bundle`` in the file of ``allowed`` signers.

    Raises :class:`SignatureError` if the bundle is unsigned, its manifest was changed after it was
    signed, or the signer is not allowed.
    """
    signature = read_signature(bundle.path)
    return check_manifest(bundle.path, bundle.manifest_bytes(), signature, allowed)


def check_manifest(
    name: Path | str, manifest: bytes, signature: bytes | None, allowed: Path
) -> str:
    """As :func:`check_signature`, for the bytes of a manifest; ``name`` is for messages."""
    if not allowed.is_file():
        raise UsageError(f"No such file of allowed signers: {allowed}")
    if signature is None:
        raise SignatureError(f"{name} is not signed.", hint=_SIGN)
    if len(signature) > MAX_SIGNATURE:
        raise SignatureError(f"{SIGNATURE} of {name} is too large for a signature.", hint=_SIGN)
    with tempfile.TemporaryDirectory(prefix="edgeattn-signature-") as folder:
        # Private copies: ssh-keygen reads both files twice.
        files = {"-f": allowed.read_bytes(), "-s": signature}
        arguments: list[str] = []
        for option, content in files.items():
            copy = Path(folder) / f"file{option}"
            copy.write_bytes(content)
            arguments += [option, str(copy)]
        principals = _ssh_keygen("find-principals", *arguments)
        # One key may have several names, separated by commas. Any of them will do.
        signers = principals.stdout.decode("utf-8", "replace").partition("\n")[0]
        signer = signers.split(",")[0].strip()
        if principals.returncode or not signer:
            raise SignatureError(
                f"The signer of {name} is not in {allowed.name}: {_last_line(principals)}",
                hint="If you trust the signer, add their public key to that file.",
            )
        process = _ssh_keygen("verify", *arguments, "-I", signer, manifest=manifest)
    if process.returncode:
        raise SignatureError(
            f"The signature of {name} does not match its manifest: {_last_line(process)}",
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
