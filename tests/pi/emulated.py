"""A Raspberry Pi's user space without a Pi: Debian for ARM in a folder, entered through qemu.

What runs there is ARM code of the wheels that a Pi would install. What it shows: they install,
load and compute the same numbers. What it does not show: speed, memory limits, the Pi's kernel.
Wherever a result of it is told, it is told as ``CLAIM``.

A root is made of Debian's own packages, unpacked and not configured, and kept under
``.out/pi/``, in a folder named by the hash of its recipe.

Two things would make its results meaningless. Programs that saw the host's ``/proc`` and ``/sys``
would choose code for the host's processor, and crash: the root has plain files there that describe
a Pi. And qemu's default processor computes some int8 kernels wrong: ``QEMU_CPU`` is always a Pi's.
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


class CannotEmulate(Exception):
    """Why there is no emulated root here: what a test says when it skips."""


@dataclass(frozen=True)
class Recipe:
    """What a root is made of. Its hash names the folder it is kept in."""

    suite: str
    architecture: str  # as Debian calls it
    machine: str  # as uname does
    python: str
    packages: tuple[str, ...]
    platforms: tuple[str, ...]  # pip expands none of them
    apart: Mapping[str, tuple[str, ...]]  # folder under /opt: what pip puts there
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
    apart={"onnx": ("onnxruntime",)},
    links={},
)
TRIXIE = Recipe(
    suite="trixie",
    architecture="arm64",
    machine="aarch64",
    python="3.13",
    packages=("python3", "libstdc++6"),
    platforms=("manylinux_2_39_aarch64", *AARCH64),
    apart={"onnx": ("onnxruntime",)},
    links={},
)
# As a Pi comes: a shell for sshd, and what makes environments, but nothing of edgeattn.
BOOKWORM_FRESH = replace(
    BOOKWORM,
    packages=(
        *BOOKWORM.packages,
        *("dash", "python3-venv", "python3-pip-whl", "python3-setuptools-whl", "base-files"),
    ),
    apart={},
    links={"usr/bin/sh": "dash"},
)
BOOKWORM_32 = Recipe(
    suite="bookworm",
    architecture="armhf",
    machine="armv7l",
    python="3.11",
    # The registry has no numpy wheel for 32-bit ARM: Debian's is what a Pi user has.
    packages=("python3", "libstdc++6", "python3-numpy", "libatomic1"),
    platforms=ARMHF,
    apart={},
    links={
        "usr/lib/arm-linux-gnueabihf/libblas.so.3": "blas/libblas.so.3",
        "usr/lib/arm-linux-gnueabihf/liblapack.so.3": "lapack/liblapack.so.3",
    },
)


@dataclass(frozen=True)
class Board:
    """What the root says it is, and the processor that qemu imitates."""

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

# Everything that the root needs of a kernel, made in namespaces that end with the command:
# nothing on this machine is mounted or registered anywhere else.
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
class Place:
    """A root entered as one board, with folders of this machine where it looks for them."""

    root: Path
    recipe: Recipe
    board: Board
    shown: tuple[tuple[Path, str], ...] = ()  # (a path here, where it is seen there)

    def command(self, *arguments: str) -> list[str]:
        """What to start here to run ``arguments`` there."""
        handler = f"/usr/lib/binfmt.d/qemu-{self.recipe.qemu}.conf"
        shown = [text for here, there in self.shown for text in (str(here), there)]
        seen = [there for _, there in self.shown if there.startswith("/opt/")]
        path = ":".join([*reversed(seen), *(f"/opt/{name}" for name in self.recipe.apart)])
        environment = {
            "HOME": HOME,
            "PATH": "/usr/bin",
            "LANG": "C.UTF-8",
            **({"PYTHONPATH": path} if path else {}),
            "PYTHONDONTWRITEBYTECODE": "1",
            # In 32-bit mode qemu has no such core: the nearest that it has.
            "QEMU_CPU": self.board.cpu if self.recipe.architecture == "arm64" else "cortex-a15",
        }
        # Nothing of the environment here: -i.
        inside = ["-i", *(f"{name}={value}" for name, value in environment.items()), *arguments]
        enter = ["unshare", "-Urm", "sh", "-c", ENTER, "enter", str(self.root), handler, HOME]
        return [*enter, *shown, "--", *inside]

    def run(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    def showing(self, here: Path, there: str) -> Place:
        """This place, where also the folder ``here`` is seen at ``there``."""
        (self.root / there.strip("/")).mkdir(parents=True, exist_ok=True)
        return Place(self.root, self.recipe, self.board, (*self.shown, (here, there)))


@functools.cache
def prepared(architecture: str) -> None:
    """What the host needs; :class:`CannotEmulate` where it cannot have it."""
    if sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"):
        raise CannotEmulate("the emulated root needs a Linux host")
    for tool in ("unshare", "chroot", "dpkg-deb", "apt-get"):
        if shutil.which(tool) is None:
            raise CannotEmulate(f"the emulated root needs {tool}, which is not here")
    if shutil.which(f"qemu-{architecture}-static") is None:
        if os.geteuid() != 0:
            raise CannotEmulate("install qemu-user-static: it is not here, and we are not root")
        _ask(["apt-get", "update", "-qq"])
        _ask(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "qemu-user-static"])
    script = (
        "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc && "
        f"cat /usr/lib/binfmt.d/qemu-{architecture}.conf > /proc/sys/fs/binfmt_misc/register"
    )
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True)
    if done.returncode:
        raise CannotEmulate(
            "this kernel lets no namespace have a binfmt of its own (Linux 6.7 does), and "
            "without one only single processes run, no children: "
            f"{done.stderr.strip() or done.returncode}"
        )


def built(recipe: Recipe) -> Path:
    """The root of ``recipe``, from the cache or made now."""
    prepared(recipe.qemu)
    root = CACHE / f"{recipe.name}-{recipe.key}"
    if (root / ".complete").exists():
        return root
    CACHE.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{recipe.name}-", dir=CACHE))
    try:
        _unpack(recipe, aside)
        for folder, requirements in recipe.apart.items():
            install(recipe, aside / "opt" / folder, requirements)
        _furnish(recipe, aside)
        (aside / ".complete").touch()
        shutil.rmtree(root, ignore_errors=True)
        aside.rename(root)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return root


def as_board(root: Path, recipe: Recipe, board: Board) -> Place:
    """``root`` as ``board``, whose description lies beside it and is shown in its place."""
    machine = CACHE / "boards" / board.name
    _describe(board, machine)
    place = Place(root, recipe, board)
    return place.showing(machine / "proc", "/proc").showing(machine / "sys", "/sys")


def install(recipe: Recipe, target: Path, requirements: Sequence[str], *extra: str) -> None:
    """Wheels for the root, fetched and unpacked by the pip of this machine; nothing is built."""
    platforms = [word for name in recipe.platforms for word in ("--platform", name)]
    tag = "cp" + recipe.python.replace(".", "")
    abis = [word for name in (tag, "abi3", "none") for word in ("--abi", name)]
    _ask(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target)),
            *("--only-binary", ":all:", "--implementation", "cp", "--no-compile"),
            *("--constraint", str(PROJECT / "constraints.txt")),
            *("--python-version", recipe.python, *abis, *platforms, *extra, *requirements),
        ]
    )


def compiled(recipe: Recipe, folder: Path) -> Path:
    """``folder`` with its modules compiled here, where the same Python runs.

    Emulated, that takes several times as long, and at every start: nothing is written there.
    """
    marker = folder / ".compiled"
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if recipe.python == here and not marker.exists():
        compileall.compile_dir(
            folder, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )
        marker.touch()
    return folder


def light_requirements(recipe: Recipe, wheel: Path) -> list[str]:
    """What ``pip install edgeattn`` would ask for on the target, by the wheel's own metadata."""
    import zipfile

    from packaging.requirements import Requirement

    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = message_from_string(archive.read(name).decode())
    there = {
        "platform_machine": recipe.machine,
        "python_version": recipe.python,
        "python_full_version": f"{recipe.python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "extra": "",
    }
    asked = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    return [
        f"{item.name}{item.specifier}"
        for item in asked
        if item.marker is None or item.marker.evaluate(there)
    ]


def wheel(folder: Path) -> Path:
    """This tree as a wheel, in ``folder``."""
    _ask(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--wheel-dir", str(folder), str(PROJECT)),
        ]
    )
    return next(folder.glob("*.whl"))


def _mirror(suite: str) -> str:
    """A line for apt, made of the sources that this machine itself uses."""
    form = "$(ORIGIN)|$(COMPONENT)|$(CODENAME)|$(REPO_URI)|$(LABEL)"
    told = _ask(["apt-get", "indextargets", "--format", form, "Created-By: Packages"])
    rows = [line.split("|") for line in told.splitlines() if line.count("|") == 4]
    found = [row[3] for row in rows if row[0] == "Debian" and row[4] == "Debian"]
    if not found:
        raise CannotEmulate("the sources of apt here name no mirror of Debian")
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    return f"deb [signed-by={keyring}] {found[0]} {suite} main\n"


def _unpack(recipe: Recipe, root: Path) -> None:
    """Debian's packages, as files: an apt with a state of its own fetches them."""
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
            # Images for containers delete what was fetched: here it is what we want.
            "APT::Update::Post-Invoke": "",
            "APT::Keep-Downloaded-Packages": "true",
        }
        apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
        _ask([*apt, "update"])
        packages = ["coreutils", *recipe.packages]
        _ask([*apt, "-y", "--download-only", "install", *packages])
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
                raise CannotEmulate(f"{package.name} cannot be unpacked")


def _furnish(recipe: Recipe, root: Path) -> None:
    for folder in ("proc", "sys", "dev", "tmp", "opt/edgeattn", "opt/light", HOME.strip("/")):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for device in ("null", "urandom"):
        (root / "dev" / device).touch()
    for link, target in recipe.links.items():
        if not (root / link).exists():
            (root / link).symlink_to(target)


def _describe(board: Board, folder: Path) -> None:
    """What a Pi's kernel says in /proc and /sys, as far as programs here ask."""
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


def _ask(command: Sequence[str], cwd: Path | None = None) -> str:
    """What a command of this machine prints; :class:`CannotEmulate` where the network is amiss."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        cwd=cwd,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        if any(word in done.stderr for word in OFFLINE):
            raise CannotEmulate(f"{command[0]} cannot fetch what it needs: {last}")
        raise RuntimeError(f"{' '.join(command[:6])} ...: {done.stderr.strip()}")
    return done.stdout
