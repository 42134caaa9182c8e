"""A Raspberry Pi's user space without a Pi: Debian for ARM in a folder, entered through qemu.

It runs the ARM code of the wheels that a Pi installs. This shows that they can be installed and
loaded and that they compute the same numbers; it shows nothing about speed, memory limits or the
kernel of a Pi. Results are reported as ``CLAIM``.

A root consists of Debian's packages, unpacked and not configured. It is kept under ``.out/pi/`` in
a folder named by the hash of its recipe.

Two precautions make the results valid. ``/proc`` and ``/sys`` of the root are plain files that
describe a Pi, because with the host's files, programs would choose code for the host's processor
and crash. ``QEMU_CPU`` is always a processor of a Pi, because qemu's default one computes some int8
kernels incorrectly.
"""

from __future__ import annotations

import compileall
import functools
import hashlib
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from email import message_from_string
from pathlib import Path

CLAIM = "ARM user space under emulation"
PROJECT = Path(__file__).parents[2]
CACHE = PROJECT / ".out" / "pi"
HOME = "/home/pi"
OFFLINE = (
    *("Temporary failure", "Could not resolve", "Connection", "Unable to locate package"),
    *("No matching distribution", "Failed to fetch", "Could not find a version"),
)


class CannotEmulateError(Exception):
    """The reason why no root can be emulated on this machine, shown by skipped tests."""


@dataclass(frozen=True)
class Recipe:
    """Packages and wheels of a root."""

    suite: str
    architecture: str  # Debian's name
    machine: str  # uname's name
    python: str
    packages: tuple[str, ...]
    platforms: tuple[str, ...]  # wheel tags; pip derives no older ones
    opt_packages: Mapping[str, tuple[str, ...]]  # folder of /opt: requirements
    links: Mapping[str, str]
    layout: int = 3

    @property
    def name(self) -> str:
        return f"{self.suite}-{self.architecture}"

    @property
    def key(self) -> str:
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:12]

    @property
    def qemu(self) -> str:
        return {"arm64": "aarch64", "armhf": "arm"}[self.architecture]


AARCH64 = (
    *("manylinux_2_34_aarch64", "manylinux_2_28_aarch64", "manylinux_2_27_aarch64"),
    *("manylinux_2_17_aarch64", "manylinux2014_aarch64"),
)
ARMHF = ("manylinux_2_34_armv7l", "manylinux_2_31_armv7l", "manylinux2014_armv7l")
BOOKWORM = Recipe(
    suite="bookworm",
    architecture="arm64",
    machine="aarch64",
    python="3.11",
    packages=("python3", "libstdc++6"),
    platforms=AARCH64,
    opt_packages={"onnx": ("onnxruntime",)},
    links={},
)
TRIXIE = Recipe(
    suite="trixie",
    architecture="arm64",
    machine="aarch64",
    python="3.13",
    packages=("python3", "libstdc++6"),
    platforms=("manylinux_2_39_aarch64", *AARCH64),
    opt_packages={"onnx": ("onnxruntime",)},
    links={},
)
# A new Pi: a shell for sshd and the packages for virtual environments, but no edgeattn.
BOOKWORM_FRESH = replace(
    BOOKWORM,
    packages=(
        *BOOKWORM.packages,
        *("dash", "python3-venv", "python3-pip-whl", "python3-setuptools-whl", "base-files"),
    ),
    opt_packages={},
    links={"usr/bin/sh": "dash"},
)
BOOKWORM_32 = Recipe(
    suite="bookworm",
    architecture="armhf",
    machine="armv7l",
    python="3.11",
    # PyPI has no NumPy wheel for 32-bit ARM, so users of such a Pi have Debian's.
    packages=("python3", "libstdc++6", "python3-numpy", "libatomic1"),
    platforms=ARMHF,
    opt_packages={},
    links={
        "usr/lib/arm-linux-gnueabihf/libblas.so.3": "blas/libblas.so.3",
        "usr/lib/arm-linux-gnueabihf/liblapack.so.3": "lapack/liblapack.so.3",
    },
)


@dataclass(frozen=True)
class Board:
    """The model described by the root's files, and the processor that qemu emulates."""

    name: str
    model: str
    cpu: str
    part: str
    features: str


PI4 = Board(
    "pi4",
    "Raspberry Pi 4 Model B Rev 1.4",
    "cortex-a72",
    "0xd08",
    "fp asimd evtstrm crc32 cpuid",
)
PI5 = Board(
    "pi5",
    "Raspberry Pi 5 Model B Rev 1.0",
    "cortex-a76",
    "0xd0b",
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop "
    "asimddp",
)

# All mounts and registrations are made in namespaces that end with the command, so they are not
# visible in the rest of this machine.
ENTER = """
set -e
root=$1 handler=$2 workdir=$3; shift 3
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
cat "$handler" > /proc/sys/fs/binfmt_misc/register
mount --bind /dev/null "$root/dev/null"
mount --bind /dev/urandom "$root/dev/urandom"
while [ "$1" != -- ]; do mount --bind "$1" "$root$2"; shift 2; done
shift
cd "$root$workdir"
exec chroot "$root" /usr/bin/env -C "$workdir" "$@"
"""


@dataclass(frozen=True)
class EmulatedPi:
    """A root run as one board. ``mounts`` are pairs of a folder of this machine and of the root."""

    root: Path
    recipe: Recipe
    board: Board
    mounts: tuple[tuple[Path, str], ...] = ()

    def command(self, *arguments: str) -> list[str]:
        """The command of this machine that runs ``arguments`` in the root."""
        handler = f"/usr/lib/binfmt.d/qemu-{self.recipe.qemu}.conf"
        mounts = [text for source, target in self.mounts for text in (str(source), target)]
        packages = [target for _, target in self.mounts if target.startswith("/opt/")]
        packages = [*reversed(packages), *(f"/opt/{name}" for name in self.recipe.opt_packages)]
        environment = {
            "HOME": HOME,
            "PATH": "/usr/bin",
            "LANG": "C.UTF-8",
            **({"PYTHONPATH": ":".join(packages)} if packages else {}),
            "PYTHONDONTWRITEBYTECODE": "1",
            # qemu has no 32-bit mode of that core; this is the closest one.
            "QEMU_CPU": self.board.cpu if self.recipe.architecture == "arm64" else "cortex-a15",
        }
        # -i: without the environment of this machine.
        inside = ["-i", *(f"{name}={value}" for name, value in environment.items()), *arguments]
        enter = ["unshare", "-Urm", "sh", "-c", ENTER, "enter", str(self.root), handler, HOME]
        return [*enter, *mounts, "--", *inside]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def mounted(self, source: Path, target: str) -> EmulatedPi:
        """This root with the folder ``source`` mounted at ``target``."""
        (self.root / target.strip("/")).mkdir(parents=True, exist_ok=True)
        return replace(self, mounts=(*self.mounts, (source, target)))


@functools.cache
def require_emulation(architecture: str) -> None:
    """Install qemu if needed; raises :class:`CannotEmulateError` if this machine cannot emulate."""
    if sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"):
        raise CannotEmulateError("the emulated root requires a Linux host")
    for tool in ("unshare", "chroot", "dpkg-deb", "apt-get"):
        if shutil.which(tool) is None:
            raise CannotEmulateError(f"the emulated root requires {tool}, which is not installed")
    if shutil.which(f"qemu-{architecture}-static") is None:
        if os.geteuid() != 0:
            raise CannotEmulateError(
                "qemu-user-static is not installed, and only root can install it"
            )
        run_command(["apt-get", "update", "-qq"])
        run_command(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "qemu-user-static"]
        )
    script = (
        "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc && "
        f"cat /usr/lib/binfmt.d/qemu-{architecture}.conf > /proc/sys/fs/binfmt_misc/register"
    )
    process = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True
    )
    if process.returncode:
        raise CannotEmulateError(
            "this kernel has no binfmt_misc per namespace (Linux 6.7 has), which processes need to "
            f"start others: {process.stderr.strip() or process.returncode}"
        )


def build_root(recipe: Recipe) -> Path:
    """The root of ``recipe``, built if it is not in the cache."""
    require_emulation(recipe.qemu)
    root = CACHE / f"{recipe.name}-{recipe.key}"
    if (root / ".complete").exists():
        return root
    CACHE.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{recipe.name}-", dir=CACHE))
    try:
        _unpack(recipe, temporary)
        for folder, requirements in recipe.opt_packages.items():
            install(recipe, temporary / "opt" / folder, requirements)
        _add_folders(recipe, temporary)
        (temporary / ".complete").touch()
        shutil.rmtree(root, ignore_errors=True)
        temporary.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return root


def as_board(root: Path, recipe: Recipe, board: Board) -> EmulatedPi:
    """``root`` as ``board``, with files in /proc and /sys that describe it."""
    machine = CACHE / "boards" / board.name
    write_kernel_files(board, machine)
    pi = EmulatedPi(root, recipe, board)
    return pi.mounted(machine / "proc", "/proc").mounted(machine / "sys", "/sys")


def install(recipe: Recipe, target: Path, requirements: Sequence[str], *extra: str) -> None:
    """Download and unpack wheels for the root with the pip of this machine, into ``target``."""
    platforms = [word for name in recipe.platforms for word in ("--platform", name)]
    tag = "cp" + recipe.python.replace(".", "")
    abis = [word for name in (tag, "abi3", "none") for word in ("--abi", name)]
    run_command(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target)),
            *("--only-binary", ":all:", "--implementation", "cp", "--no-compile"),
            *("--constraint", str(PROJECT / "constraints.txt")),
            *("--python-version", recipe.python, *abis, *platforms, *extra, *requirements),
        ]
    )


def precompile(recipe: Recipe, folder: Path) -> Path:
    """Compile the modules of ``folder``, if this machine has the same Python; returns ``folder``.

    Under emulation it takes several times as long, at every start, because the root is not written
    to.
    """
    marker = folder / ".compiled"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if recipe.python == version and not marker.exists():
        compileall.compile_dir(
            folder, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )
        marker.touch()
    return folder


def light_requirements(recipe: Recipe, wheel: Path) -> list[str]:
    """The requirements of edgeattn on the target, from the metadata of ``wheel``."""
    import zipfile

    from packaging.requirements import Requirement

    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = message_from_string(archive.read(name).decode())
    environment = {
        "platform_machine": recipe.machine,
        "python_version": recipe.python,
        "python_full_version": f"{recipe.python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "extra": "",
    }
    required = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    return [
        f"{item.name}{item.specifier}"
        for item in required
        if item.marker is None or item.marker.evaluate(environment)
    ]


def build_project_wheel(folder: Path) -> Path:
    """Build a wheel of this working tree in ``folder``."""
    run_command(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--wheel-dir", str(folder), str(PROJECT)),
        ]
    )
    return next(folder.glob("*.whl"))


def _mirror(suite: str) -> str:
    """A line of sources.list with the Debian mirror of this machine."""
    form = "$(ORIGIN)|$(COMPONENT)|$(CODENAME)|$(REPO_URI)|$(LABEL)"
    output = run_command(["apt-get", "indextargets", "--format", form, "Created-By: Packages"])
    rows = [line.split("|") for line in output.splitlines() if line.count("|") == 4]
    mirrors = [row[3] for row in rows if row[0] == "Debian" and row[4] == "Debian"]
    if not mirrors:
        raise CannotEmulateError("the apt sources of this machine contain no Debian mirror")
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    return f"deb [signed-by={keyring}] {mirrors[0]} {suite} main\n"


def _unpack(recipe: Recipe, root: Path) -> None:
    """Download Debian's packages, by apt with a state of its own, and unpack them into ``root``."""
    with tempfile.TemporaryDirectory(prefix="edgeattn-apt-") as name:
        state = Path(name)
        for folder in ("lists/partial", "cache/archives/partial"):
            (state / folder).mkdir(parents=True)
        (state / "status").touch()
        (state / "sources.list").write_text(_mirror(recipe.suite))
        options = {
            "APT::Architecture": recipe.architecture,
            "APT::Architectures": recipe.architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "",
            "Dir::State": state,
            "Dir::State::lists": state / "lists",
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
            "Dir::Etc::sourcelist": state / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferencesparts": "-",
            "Acquire::Languages": "none",
            "Debug::NoLocking": "true",
            # Container images configure apt to delete downloaded packages.
            "APT::Update::Post-Invoke": "",
            "APT::Keep-Downloaded-Packages": "true",
        }
        apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
        run_command([*apt, "update"])
        packages = ["coreutils", *recipe.packages]
        run_command([*apt, "-y", "--download-only", "install", *packages])
        for link in ("bin", "sbin", "lib"):
            (root / "usr" / link).mkdir(parents=True)
            (root / link).symlink_to(f"usr/{link}")
        for package in sorted((state / "cache" / "archives").glob("*.deb")):
            files = subprocess.Popen(
                ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
            )
            subprocess.run(
                ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)],
                stdin=files.stdout,
                check=True,
            )
            assert files.stdout is not None
            files.stdout.close()
            if files.wait():
                raise CannotEmulateError(f"{package.name} cannot be unpacked")


def _add_folders(recipe: Recipe, root: Path) -> None:
    for folder in ("proc", "sys", "dev", "tmp", "opt/edgeattn", "opt/light", HOME.strip("/")):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for device in ("null", "urandom"):
        (root / "dev" / device).touch()
    for link, target in recipe.links.items():
        if not (root / link).exists():
            (root / link).symlink_to(target)


def write_kernel_files(board: Board, folder: Path) -> None:
    """Write the files of a Pi's /proc and /sys that the tested programs read."""
    core = (
        "processor\t: {}\nBogoMIPS\t: 108.00\nFeatures\t: {}\nCPU implementer\t: 0x41\n"
        "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {}\nCPU revision\t: 3\n"
    )
    cores = "\n".join(core.format(number, board.features, board.part) for number in range(4))
    files = {
        "proc/cpuinfo": f"{cores}\nModel\t\t: {board.model}\n",
        "proc/meminfo": "MemTotal:        3884640 kB\nMemAvailable:    3427196 kB\n",
        "proc/device-tree/model": board.model + "\0",
        **{f"sys/devices/system/cpu/{n}": "0-3\n" for n in ("possible", "present", "online")},
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def debian_packages(name: str, *packages: str) -> Path:
    """The cached folder ``name`` with the contents of Debian's ``packages`` for this machine."""
    root = CACHE / name
    if not root.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=CACHE))
        try:
            run_command(["apt-get", "download", "-qq", *packages], cwd=temporary)
            for package in temporary.glob("*.deb"):
                run_command(["dpkg-deb", "-x", str(package), str(temporary)])
            temporary.rename(root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return root


def run_command(command: Sequence[str], cwd: Path | None = None) -> str:
    """The output of a command of this machine.

    Raises :class:`CannotEmulateError` without network.
    """
    process = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
    )
    if process.returncode:
        last = (process.stderr.strip() or process.stdout.strip() or "no output").splitlines()[-1]
        if any(sign in process.stderr for sign in OFFLINE):
            raise CannotEmulateError(f"{command[0]} cannot download its files: {last}")
        raise RuntimeError(f"{' '.join(command[:6])} ...: {process.stderr.strip()}")
    return process.stdout
