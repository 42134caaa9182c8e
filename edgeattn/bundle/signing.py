"""Bundles signed and refused unsigned, with OpenSSH's signatures (SSHSIG) and nothing of our own.

What is signed is the manifest, which holds the hash of every other file; the signature lies beside
it as ``manifest.json.sig``. ``ssh-keygen`` makes it and checks it, by hand too:

    ssh-keygen -Y verify -f ALLOWED_SIGNERS -I WHO -n edgeattn-bundle \\
        -s manifest.json.sig < manifest.json

The format of a file of allowed signers, one ``WHO KEYTYPE KEY`` a line, is that of
``man ssh-keygen``; with ``namespaces="edgeattn-bundle"`` a key may sign bundles and nothing else.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import MANIFEST
from edgeattn.errors import SignatureError, UsageError

SIGNATURE = MANIFEST + ".sig"
NAMESPACE = "edgeattn-bundle"
MAX_SIGNATURE = 2**16
SECONDS = 60
_SIGN = "Sign it with: edgeattn sign BUNDLE --key ~/.ssh/id_ed25519"


def sign(bundle: Bundle, key: Path) -> Path:
    """Sign ``bundle`` with a private key, or a public one whose private half an agent holds.

    Raises :class:`BundleError` where a file is not what the manifest says, :class:`UsageError`
    where the key cannot be used. A signature that was there is replaced.
    """
    bundle.verify()
    if not key.is_file():
        raise UsageError(f"No such key: {key}", hint="Make one with: ssh-keygen -t ed25519")
    target = bundle.path / SIGNATURE
    with tempfile.TemporaryDirectory(prefix=".signing-", dir=bundle.path) as folder:
        copy = Path(folder) / MANIFEST
        copy.write_bytes((bundle.path / MANIFEST).read_bytes())
        done = _keygen("sign", "-f", str(key.absolute()), str(copy), ask=True)
        made = copy.with_name(SIGNATURE)
        if done.returncode or not made.is_file():
            raise UsageError(
                f"{key} cannot sign: {_last(done)}",
                hint="Give a private key of ssh-keygen's, or a public one that your agent holds.",
            )
        made.rename(target)
    return target


def check_signature(bundle: Bundle, allowed: Path) -> str:
    """Who signed ``bundle``, one of those in the file of ``allowed`` signers.

    Raises :class:`SignatureError` for a bundle that is unsigned, was changed after it was signed,
    or was signed by somebody else; :class:`BundleError` where another file was changed.
    """
    if not allowed.is_file():
        raise UsageError(f"No such file of allowed signers: {allowed}")
    signature = bundle.path / SIGNATURE
    if not signature.is_file():
        raise SignatureError(f"{bundle.path} is not signed.", hint=_SIGN)
    if signature.stat().st_size > MAX_SIGNATURE:
        raise SignatureError(f"{signature.name} of {bundle.path} is no signature.", hint=_SIGN)
    manifest = (bundle.path / MANIFEST).read_bytes()
    names = ("-f", str(allowed.absolute()), "-s", str(signature.absolute()))
    found = _keygen("find-principals", *names)
    # The file names them as a list with commas; any of them will do.
    who = found.stdout.decode("utf-8", "replace").partition("\n")[0].split(",")[0].strip()
    if found.returncode or not who:
        raise SignatureError(
            f"{bundle.path} was signed by nobody that {allowed.name} lists: {_last(found)}",
            hint="Is it from whom you think? Then add their public key to that file.",
        )
    done = _keygen("verify", *names, "-I", who, manifest=manifest)
    if done.returncode:
        raise SignatureError(
            f"The signature of {bundle.path} does not fit its manifest: {_last(done)}",
            hint="The bundle was changed after it was signed. Get it again from where it was made.",
        )
    bundle.verify()
    return who


def _keygen(
    verb: str, *arguments: str, manifest: bytes = b"", ask: bool = False
) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise UsageError(
            "There is no ssh-keygen here.", hint="Install it: sudo apt install openssh-client"
        )
    # find-principals knows no namespace; a passphrase is asked for on the terminal, by ssh-keygen.
    space = () if verb == "find-principals" else ("-n", NAMESPACE)
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(
            [program, "-Y", verb, *space, *arguments],
            input=manifest,
            capture_output=True,
            check=False,
            timeout=None if ask else SECONDS,
        )
    raise UsageError("ssh-keygen did not come back.")


def _last(done: subprocess.CompletedProcess[bytes]) -> str:
    said = (done.stderr + done.stdout).decode("utf-8", "replace").strip().splitlines()
    return said[-1] if said else f"ssh-keygen ended with {done.returncode}"
