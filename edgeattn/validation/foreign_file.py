"""A ``.tflite`` or ``.onnx`` file that any converter wrote, as a bundle that can be validated.

The expected values come from the Keras file, if the converters are installed, or from a file of
inputs and outputs. The bundle contains an unchanged copy of the file.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import (
    REFERENCE,
    SAMPLES,
    Artifact,
    Manifest,
    sha256,
    write_manifest,
)
from edgeattn.converters import import_converters
from edgeattn.errors import UsageError
from edgeattn.file_structure.contents import FileContents, FileTensor
from edgeattn.file_structure.read import read_contents
from edgeattn.samples.npz import read_npz, write_npz
from edgeattn.tensors import DTYPES, Tensors, TensorSpec

MAPS = "attention/"
# What TensorFlow adds to the names of inputs.
_DECORATION = re.compile(r"^serving_default_|:\d+$")
# The least share of weights that makes a file one of a scheme.
_MIN_SHARE = 0.5


@dataclass(frozen=True)
class ForeignFile:
    """A model file, its format, its contents and the scheme whose limits apply."""

    path: Path
    format: str
    contents: FileContents
    scheme: str

    @classmethod
    def read(cls, path: Path, format: str, scheme: str | None = None) -> ForeignFile:
        """Read a file; without ``scheme``, its weights and operators decide.

        Raises :class:`ArtifactError` if it cannot be read or is malformed.
        """
        contents = read_contents(path, format, own_names=False)
        return cls(path, format, contents, scheme or scheme_of(contents))

    def sizes(self) -> dict[str, Any]:
        """The fields of a ``ModelSource`` with the sizes of the inputs; none if some are free."""
        names = {
            tensor.name: self.contents.signature.get(tensor.name) or _plain(tensor.name)
            for tensor in self.contents.inputs
        }
        shapes = {names[item.name]: tuple(item.shape or ())[1:] for item in self.contents.inputs}
        if any(None in shape for shape in shapes.values()):
            return {}
        images = {name: shape for name, shape in shapes.items() if len(shape) > 2}
        lengths = {name: shape[0] for name, shape in shapes.items() if 0 < len(shape) <= 2}
        if not images and len(set(lengths.values())) == 1:
            return {"time_steps": next(iter(lengths.values()))}
        return {"lengths": tuple(lengths.items()), "shapes": tuple(images.items())}

    def with_keras(
        self, model: Path, data: Path | None, loading: Mapping[str, Any], folder: Path
    ) -> tuple[Bundle, list[str]]:
        """The bundle in ``folder`` with a Keras file as the origin of its reference, and notes.

        ``data`` are real inputs, ``loading`` the fields of a ``ModelSource``. Raises as a
        conversion does, and :class:`UsageError` if inputs or outputs differ from the model's.
        """
        converters = import_converters()
        client = import_converters("edgeattn_converters.worker.client")
        source = converters.ModelSource(model, samples=data, **self.sizes(), **dict(loading))
        source.check_files()
        maps = any(tensor.name.startswith(MAPS) for tensor in self.contents.outputs)
        options = converters.ConversionOptions(
            formats=(self.format,), schemes=(self.scheme,), attention=maps
        )
        try:
            with client.ConversionWorker() as worker:
                worker.check(source, options)
                entry, reference = worker.prepare(source, options, folder)
        except UsageError as error:
            message = f"{error.message} {error.hint}"
            if "--time-steps" not in message and "--input-shape" not in message:
                raise
            raise self._sizes_error(model, error.message) from error
        return self._bundle(folder, entry, reference)

    def _sizes_error(self, model: Path, reason: str) -> UsageError:
        listed = f"The inputs of {self.path.name} are {_listed(self.contents.inputs)}"
        if not self.sizes():
            return UsageError(
                f"{listed}: their sizes are free, so those to compare at are not known.",
                hint="Pass samples: --data FILE",
            )
        return UsageError(
            f"{listed}, and {model.name} does not take these sizes: {reason}",
            hint="Pass the Keras file that it was converted from, and if the names of its inputs "
            "are others, samples: --data FILE.",
        )

    def with_reference(self, arrays: Path, folder: Path) -> tuple[Bundle, list[str]]:
        """The bundle in ``folder`` with the arrays of an ``.npz`` file as its reference, and notes.

        They are named ``input/NAME``, ``output/NAME`` and ``attention/LAYER``. Raises
        :class:`UsageError` if they do not fit the file.
        """
        tensors = read_npz(arrays)
        rows = {len(array) if array.ndim else 0 for array in tensors.values()}
        if len(rows) != 1 or 0 in rows or not _keys(tensors, "input/"):
            raise UsageError(
                f"{arrays.name} is no reference: its arrays are {', '.join(tensors) or 'none'}.",
                hint="Write arrays named input/NAME and output/NAME, with the same number of rows.",
            )
        with (folder / REFERENCE).open("wb") as file:
            write_npz(file, tensors)
        reference = {
            "path": REFERENCE,
            "sha256": sha256(folder / REFERENCE),
            "kind": SAMPLES,
            "source": arrays.name,
            "expected": arrays.name,
            "samples": rows.pop(),
            "edge_cases": 0,
        }
        return self._bundle(folder, {"file": self.path.name, "parameters": 0}, reference)

    def _bundle(
        self, folder: Path, model: Mapping[str, Any], reference: Mapping[str, Any]
    ) -> tuple[Bundle, list[str]]:
        tensors = read_npz(folder / REFERENCE)
        notes: list[str] = [
            f"the limits are those of {self.scheme}, which the file's weights and operators are"
        ]
        inputs = self._specs(self.contents.inputs, _keys(tensors, "input/"), tensors, notes)
        expected = [*_keys(tensors, "output/"), *_keys(tensors, MAPS, keep=True)]
        outputs = self._specs(self.contents.outputs, expected, tensors, notes)
        shutil.copyfile(self.path, folder / self.path.name)
        artifact = Artifact(
            self.format,
            self.scheme,
            self.path.name,
            sha256(folder / self.path.name),
            self.path.stat().st_size,
            inputs,
            outputs,
            tuple(spec.name for spec in outputs if spec.name.startswith(MAPS)),
            self.contents.to_json(),
        )
        manifest = Manifest(model, (artifact,), reference, {})
        write_manifest(folder, manifest)
        return Bundle.open(folder), notes

    def _specs(
        self,
        stored: Sequence[FileTensor],
        keys: Sequence[tuple[str, str]],
        arrays: Tensors,
        notes: list[str],
    ) -> tuple[TensorSpec, ...]:
        """Specs with the names of the model, for ``stored`` tensors; ``keys`` are (name, array)."""
        shapes = {name: arrays[key].shape for name, key in keys}
        pairs = paired(stored, shapes, self.contents.signature, notes)
        if pairs is None:
            raise UsageError(
                f"{self.path.name} has {_listed(stored)}, and the model has "
                + (", ".join(f"{name} {shape[1:]}" for name, shape in shapes.items()) or "none")
                + ": shapes without the batch axis differ.",
                hint="Pass the Keras file that it was converted from.",
            )
        values = {name: arrays[key] for name, key in keys}
        return tuple(self._spec(tensor, pairs[tensor.name], values) for tensor in stored)

    def _spec(self, tensor: FileTensor, name: str, values: Tensors) -> TensorSpec:
        array = values[name]
        if tensor.dtype not in DTYPES:
            raise UsageError(f"{tensor.name!r} of {self.path.name} has the dtype {tensor.dtype}.")
        integers = np.dtype(tensor.dtype).kind in "iu" and tensor.scale is None
        if (
            integers
            and tensor in self.contents.inputs
            and not np.array_equal(array, np.rint(array))
        ):
            raise UsageError(
                f"Input {tensor.name!r} of {self.path.name} takes {tensor.dtype} without a scale, "
                f"and the model takes real numbers.",
                hint="Convert the model with quantization parameters for its inputs.",
            )
        batch = 1 if self.format == "tflite" else None
        if tensor.shape is not None and tensor.shape[0] is not None:
            batch = tensor.shape[0]
        return TensorSpec(
            name,
            (batch, *array.shape[1:]),
            tensor.dtype,
            tensor.scale,
            tensor.zero_point,
            stored_name=None if tensor.name == name else tensor.name,
        )


def scheme_of(contents: FileContents) -> str:
    """The scheme of a file by the types of its operators and weights."""
    for dtype, scheme in (("int16", "int16x8"), ("int8", "int8")):
        if contents.computes_in.get(dtype):
            return scheme
    for dtype, scheme in (("int8", "dynamic_int8"), ("int4", "int4"), ("float16", "float16")):
        if contents.share_of(dtype) >= _MIN_SHARE:
            return scheme
    return "float32"


def paired(
    stored: Sequence[FileTensor],
    shapes: Mapping[str, tuple[int, ...]],
    signature: Mapping[str, str],
    notes: list[str],
) -> dict[str, str] | None:
    """The name of the model by that of the tensor; None if there is no such pairing.

    Names decide, then shapes; what remains is paired in order, of the numbers at the end of the
    names if they have any, which adds to ``notes``.
    """
    pairs: dict[str, str] = {}

    def fits(tensor: FileTensor, name: str) -> bool:
        shape = shapes[name]
        if tensor.shape is None:
            return True
        same = (own in (None, axis) for own, axis in zip(tensor.shape[1:], shape[1:], strict=False))
        return len(tensor.shape) == len(shape) and all(same)

    def left() -> tuple[list[FileTensor], list[str]]:
        names = [name for name in shapes if name not in pairs.values()]
        return [tensor for tensor in stored if tensor.name not in pairs], names

    if len({tensor.name for tensor in stored}) != len(stored) or len(stored) != len(shapes):
        return None
    for tensor in stored:
        for name in (tensor.name, signature.get(tensor.name, ""), _plain(tensor.name)):
            if name in shapes and name not in pairs.values() and fits(tensor, name):
                pairs[tensor.name] = name
                break
    for _ in stored:
        tensors, names = left()
        for tensor in tensors:
            candidates = [name for name in names if fits(tensor, name)]
            rivals = [t for t in tensors if any(fits(t, name) for name in candidates)]
            if len(candidates) == 1 and len(rivals) == 1:
                pairs[tensor.name] = candidates[0]
    tensors, names = left()
    ordered = sorted(tensors, key=lambda t: _number(signature.get(t.name, t.name)))
    if not all(fits(tensor, name) for tensor, name in zip(ordered, names, strict=True)):
        return None
    pairs.update((tensor.name, name) for tensor, name in zip(ordered, names, strict=True))
    if len(ordered) > 1:
        listed = ", ".join(f"{t.name} is {pairs[t.name]}" for t in ordered)
        notes.append(f"names and shapes do not identify these, so their order decides: {listed}")
    return pairs


def _plain(name: str) -> str:
    return _DECORATION.sub("", _DECORATION.sub("", name))


def _number(name: str) -> int:
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else 0


def _keys(arrays: Tensors, prefix: str, *, keep: bool = False) -> list[tuple[str, str]]:
    """``(name, array)`` of the arrays with a prefix, which attention maps ``keep``."""
    return [
        (key if keep else key.removeprefix(prefix), key) for key in arrays if key.startswith(prefix)
    ]


def _listed(tensors: Sequence[FileTensor]) -> str:
    return ", ".join(map(str, tensors)) or "none"
