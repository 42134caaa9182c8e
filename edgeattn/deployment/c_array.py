"""A model of a bundle as C++ source, for programs on a microcontroller.

The folder has ``model.cc`` with the bytes of the file, and ``model.h`` with its size, the size of
the arena and the operators that the interpreter needs.
"""

from dataclasses import dataclass
from pathlib import Path

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import BundleError, OutputError, UsageError
from edgeattn.file_structure.read import read_contents
from edgeattn.files import atomic_folder
from edgeattn.printable import enumerated, printable
from edgeattn.runners.micro_operators import resolver_method
from edgeattn.schemes import MICRO
from edgeattn.tensors import TensorSpec
from edgeattn.version import __version__

HEADER, SOURCE = "model.h", "model.cc"
BYTES_PER_LINE = 16


@dataclass(frozen=True)
class CArray:
    """Sizes in bytes, and the operators as methods of ``MicroMutableOpResolver``."""

    flash_bytes: int
    arena_bytes: int
    operators: tuple[str, ...]


def micro_artifact(bundle: Bundle, schemes: tuple[str, ...] = ()) -> Artifact:
    """The artifact for microcontrollers that has one of ``schemes``, if any are named.

    Raises :class:`BundleError` if there is none, and :class:`UsageError` if there are several.
    """
    artifacts = [item for item in bundle.manifest.artifacts if item.runtime == MICRO]
    if not artifacts:
        raise BundleError(
            f"{bundle.path} has no file for microcontrollers.",
            hint=f"Convert the model with --target {MICRO}.",
        )
    chosen = [item for item in artifacts if not schemes or item.scheme in schemes]
    labels = ", ".join(item.scheme for item in artifacts)
    if not chosen:
        raise UsageError(
            f"{bundle.path} has no {enumerated(schemes, 'or')} file.",
            hint=f"Choose one of: {labels}.",
        )
    if len(chosen) > 1:
        raise UsageError(
            f"{bundle.path} has several files for microcontrollers: {labels}.",
            hint="Choose one with --scheme.",
        )
    return chosen[0]


def write_c_array(bundle: Bundle, artifact: Artifact, folder: Path, *, force: bool) -> CArray:
    """Write the source of ``artifact`` to the new folder ``folder``; ``force`` replaces it.

    Raises :class:`OutputError` if the folder exists or cannot be written, and :class:`BundleError`
    if the file differs from its entry in the manifest.
    """
    if folder.exists() and (not force or not _is_own(folder)):
        raise OutputError(
            f"The output folder exists: {folder}",
            hint="Replace it with --force, or use -o FOLDER.",
        )
    content = bundle.read(artifact.path)
    contents = read_contents(bundle.artifact_path(artifact), artifact.format, content)
    methods = {kind: resolver_method(kind) for kind in contents.operators}
    if missing := [kind for kind, method in methods.items() if method is None]:
        raise BundleError(
            f"{artifact.path} has operators that {MICRO} lacks: {', '.join(missing)}.",
            hint="Convert the model again.",
        )
    operators = tuple(str(method) for method in methods.values())
    arena = artifact.achieved.get("arena_bytes")
    if arena is None:
        raise BundleError(
            f"{artifact.path} has no size of its arena.", hint="Convert the model again."
        )
    result = CArray(len(content), arena, operators)
    try:
        with atomic_folder(folder) as new:
            (new / HEADER).write_text(_header(artifact, result), "utf-8")
            (new / SOURCE).write_text(_source(content), "utf-8")
    except OSError as error:
        raise OutputError(f"Cannot write {folder}: {error.strerror or error}") from error
    return result


def _is_own(folder: Path) -> bool:
    """Whether a folder has nothing but what :func:`write_c_array` writes."""
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= {HEADER, SOURCE}


def _header(artifact: Artifact, array: CArray) -> str:
    calls = " &&\n         ".join(f"resolver.Add{name}() == 0" for name in array.operators)
    tensors = "\n".join(
        f"//   {side} {k}: {_tensor(spec)}"
        for side, specs in (("input", artifact.inputs), ("output", artifact.outputs))
        for k, spec in enumerate(specs)
    )
    return f"""// {printable(artifact.path)}, written by edgeattn {__version__}.
// SHA-256 {artifact.sha256}
//
{tensors}
#ifndef EDGEATTN_MODEL_H_
#define EDGEATTN_MODEL_H_

#include <cstddef>

namespace edgeattn_model {{

extern const unsigned char kModel[];
constexpr std::size_t kModelBytes = {array.flash_bytes};

// Measured in the interpreter on a 64-bit computer; processors with 32 bits need less.
constexpr std::size_t kArenaBytes = {array.arena_bytes};

// For tflite::MicroMutableOpResolver<kOperatorCount>.
constexpr unsigned kOperatorCount = {len(array.operators)};

template <typename Resolver>
bool AddOperators(Resolver& resolver) {{
  return {calls};
}}

}}  // namespace edgeattn_model

#endif  // EDGEATTN_MODEL_H_
"""


def _tensor(spec: TensorSpec) -> str:
    """A description that fits into a comment of one line."""
    scale = (
        "" if spec.scale is None else f", real = {spec.scale:.9g} * (n - {spec.zero_point or 0})"
    )
    return f"{printable(str(spec))}{scale}".replace("\\", "/")


def _source(content: bytes) -> str:
    lines = (
        "".join(f"0x{byte:02x}, " for byte in content[k : k + BYTES_PER_LINE]).rstrip()
        for k in range(0, len(content), BYTES_PER_LINE)
    )
    array = "\n    ".join(lines)
    return f"""#include "{HEADER}"

namespace edgeattn_model {{

// Constant, so that it stays in flash.
alignas(16) const unsigned char kModel[] = {{
    {array}
}};

}}  // namespace edgeattn_model
"""
