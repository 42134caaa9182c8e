"""The argument of ``edgeattn validate``: a bundle, or a ``.tflite`` or ``.onnx`` file."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeattn.api.arguments import ArtifactSelection, ModelLoading
from edgeattn.errors import UsageError

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle


@dataclass(frozen=True)
class Origin:
    """Where the expected values of a file come from: a Keras file, or arrays in ``reference``."""

    model: Path | None
    reference: Path | None
    data: Path | None
    loading: ModelLoading

    def check(self, path: Path) -> None:
        """Raise :class:`UsageError` unless exactly one of them is given for the file ``path``."""
        if self.model is None and self.reference is None:
            raise UsageError(
                f"{path.name} is no bundle, so it has no expected values.",
                hint="Pass the Keras file that it was converted from: --model FILE, or inputs and "
                "outputs: --reference FILE.npz",
            )
        if self.reference is None:
            return
        if self.model is not None or self.data is not None:
            other = "--model" if self.model is not None else "--data"
            raise UsageError(
                f"--reference and {other} exclude each other.", hint=f"Omit {other} or --reference."
            )
        if not self.reference.is_file():
            raise UsageError(f"--reference: no such file: {self.reference}")


def is_foreign_file(path: Path) -> bool:
    """Whether ``path`` is a ``.tflite`` or ``.onnx`` file and not a bundle."""
    from edgeattn.inspection import ONNX, TFLITE, file_kind

    return path.is_file() and file_kind(path) in (TFLITE, ONNX)


def open_as_bundle(
    path: Path, selection: ArtifactSelection, origin: Origin, folder: Path
) -> tuple[Bundle, tuple[str, ...]]:
    """A bundle in ``folder`` with the file ``path``, and notes on how it was compared."""
    from edgeattn.inspection import file_kind
    from edgeattn.validation.foreign_file import ForeignFile

    origin.check(path)
    if len(selection.schemes) > 1:
        raise UsageError(
            f"{path.name} is one file, of one scheme.", hint="Pass --scheme once, or omit it."
        )
    scheme = next(iter(selection.schemes), None)
    folder = folder / path.name
    folder.mkdir()
    stored = ForeignFile.read(path, file_kind(path), scheme)
    if origin.reference is not None:
        bundle, notes = stored.with_reference(origin.reference, folder)
    else:
        assert origin.model is not None
        loading = {**origin.loading.to_json(), "ignore": origin.loading.ignore}
        bundle, notes = stored.with_keras(origin.model, origin.data, loading, folder)
    return bundle, tuple(notes)


def next_command(path: Path, model: Path | None) -> str:
    """The arguments of ``edgeattn validate`` for ``path``."""
    words = [str(path), *(() if model is None else ("--model", str(model)))]
    return shlex.join(words)
