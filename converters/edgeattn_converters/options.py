"""What a caller can choose: the model to load, the files to write, and how to quantize them."""

from __future__ import annotations

import ast
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgeattn.bundle.manifest import MANIFEST
from edgeattn.errors import UsageError, first_line
from edgeattn.frontend.description import from_toml
from edgeattn.frontend.text_files import read_labels
from edgeattn.schemes import FORMATS, MICRO
from edgeattn_converters.recipes import (
    OPSETS,
    PRECISIONS,
    RECIPES,
    expand_schemes,
    formats_for,
)

StrPath = str | os.PathLike[str]
MAX_TIME_STEPS = 100_000


@dataclass(frozen=True)
class ModelSource:
    """A trained Keras model and what is needed to load it.

    Attributes:
        path: A ``.h5`` or ``.keras`` file, or a SavedModel folder.
        samples: An ``.npz``, ``.npy`` or ``.csv`` file of real inputs for the reference.
            Without it, some of the calibration samples are set aside for the reference; without
            these, plausible inputs are derived from the model.
        time_steps: The sequence length, if the model leaves it free.
        custom_objects: A ``.py`` file that defines the model's custom layers and functions.
        architecture: ``FILE.json`` or ``FILE.py:FUNCTION``: the architecture of a file that
            holds weights only.
        signature: The name of the signature of a SavedModel folder that is the model, if it is
            neither the Keras layers of the folder nor ``serving_default``.
        trust: The SHA-256 of this one file, to load it although the audit refused it as unsafe.
        ignore: Names of arrays to leave out in the files of samples.
        preprocess: A ``.toml`` file that describes the front end.
        labels: A text file with a label for each class, one per line.
        raw_samples: A file of raw inputs for the reference, which the front end and the original
            preprocessing layers prepare.
        lengths: The sequence length of each input by name, if they differ.
        shapes: The shape of inputs with several free axes by name, without the batch axis.
        sized_by: A file of samples with sequences of the model's lengths, if ``samples`` is none.
    """

    path: StrPath
    samples: StrPath | None = None
    time_steps: int | None = None
    custom_objects: StrPath | None = None
    architecture: str | None = None
    signature: str | None = None
    trust: str | None = None
    ignore: Sequence[str] = ()
    preprocess: StrPath | None = None
    labels: StrPath | None = None
    raw_samples: StrPath | None = None
    lengths: Sequence[tuple[str, int]] = ()
    sized_by: StrPath | None = None
    shapes: Sequence[tuple[str, tuple[int, ...]]] = ()

    def __post_init__(self) -> None:
        paths = ("path", "samples", "custom_objects", "preprocess", "labels", "raw_samples")
        for name in (*paths, "sized_by"):
            value = getattr(self, name)
            # Plain strings travel as JSON and make equal sources equal cache keys.
            object.__setattr__(self, name, None if value is None else os.fspath(value))
        object.__setattr__(self, "ignore", tuple(self.ignore))
        lengths = tuple((name, length) for name, length in self.lengths)
        object.__setattr__(self, "lengths", lengths)
        shapes = tuple((name, tuple(shape)) for name, shape in self.shapes)
        object.__setattr__(self, "shapes", shapes)
        if self.time_steps is not None:
            _check_size(f"--time-steps {self.time_steps}", self.time_steps)
        for name, length in lengths:
            _check_size(f"--time-steps {name}={length}", length)
        for name, shape in shapes:
            for size in shape:
                _check_size(f"--input-shape {name}={'x'.join(map(str, shape))}: {size}", size)

    @classmethod
    def of(cls, source: StrPath | ModelSource) -> ModelSource:
        """``source``, or the source at this path."""
        return source if isinstance(source, ModelSource) else cls(source)

    def beside(self, suffix: str) -> Path:
        """The model's path with another suffix."""
        path = Path(self.path)
        return (path if path.name else path.absolute()).with_suffix(suffix)

    def check_files(self) -> None:
        """Raises :class:`UsageError` if a file is missing, or if the model is a bundle."""
        path = Path(self.path)
        # The prefix of a TensorFlow checkpoint is no file; the audit names what it is.
        if not path.exists() and not Path(f"{path}.index").is_file():
            raise UsageError(f"No such file: {path}", hint="Pass a Keras .h5 or .keras file.")
        if (path / MANIFEST).is_file():
            raise UsageError(
                f"{path} is already a bundle.", hint=f"List its contents: edgeattn inspect {path}"
            )
        _check_samples(self.samples, "--samples")
        for option in ("preprocess", "labels", "raw_samples"):
            _check_raw(getattr(self, option), f"--{option.replace('_', '-')}")
        if self.preprocess is not None:
            from_toml(Path(self.preprocess))
        if self.labels is not None:
            read_labels(Path(self.labels))
        _check_python(self.custom_objects, "--custom-objects")
        if self.architecture is not None:
            file, colon, _ = self.architecture.rpartition(":")
            if colon and file.endswith(".py"):
                _check_python(file, "--architecture")

    def command(self, name: str) -> str:
        """The command ``edgeattn NAME`` for the model, with the options that loading it needs."""
        # A name with a dash would be an option.
        path = f"./{self.path}" if str(self.path).startswith("-") else str(self.path)
        words = ["edgeattn", name, path]
        for option in ("custom_objects", "architecture", "signature", "trust"):
            if (value := getattr(self, option)) is not None:
                words += [f"--{option.replace('_', '-')}", str(value)]
        return shlex.join(words)

    def to_json(self) -> dict[str, Any]:
        rarely = ("lengths", "sized_by", "shapes", "signature")
        return {k: v for k, v in asdict(self).items() if v or k not in rarely}


def _check_size(option: str, size: int) -> None:
    if not 1 <= size <= MAX_TIME_STEPS:
        raise UsageError(
            f"{option} is not between 1 and {MAX_TIME_STEPS:,}.",
            hint="Pass the length of one sequence, as in training.",
        )


def _check_samples(path: StrPath | None, option: str) -> None:
    if path is not None and not Path(path).is_file():
        raise UsageError(
            f"{option}: no such file: {path}", hint="Pass an .npz, .npy or .csv file of samples."
        )


def _check_raw(path: StrPath | None, option: str) -> None:
    if path is not None and not Path(path).is_file():
        raise UsageError(f"{option}: no such file: {path}", hint="Pass the path of a file.")


def _check_python(path: StrPath | None, option: str) -> None:
    """Raise :class:`UsageError` if a file is missing or not Python; it is not executed."""
    if path is None:
        return
    if not Path(path).is_file():
        raise UsageError(f"{option}: no such file: {path}.", hint="Pass the path of a Python file.")
    try:
        ast.parse(Path(path).read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UsageError(
            f"{option}: {Path(path).name}{line} is not valid Python: {first_line(error)}",
            hint=f"Try: python {path}",
        ) from error


@dataclass(frozen=True)
class ConversionOptions:
    """The files to write, and what they compute.

    Attributes:
        formats, schemes: ``tflite`` and ``onnx``; names of
            :data:`~edgeattn_converters.recipes.RECIPES`, and ``all`` for all but
            ``int16x8`` and ``int4``. Default: every format of the ``targets``, and every scheme
            of ``all`` that the given data allows.
        targets: The runtimes the files are for: names of
            :data:`~edgeattn_converters.recipes.TARGETS`.
        attention: Whether attention maps are outputs of the files.
        attention_layers: Layers whose softmax is exported as a map in addition to those that
            are detected.
        lowering: How a TFLite file computes recurrences; a name of
            :mod:`edgeattn_converters.lowering.rnn.strategy`.
        batch: The batch size of TFLite files. That of ONNX files is free, or 1 with dynamic
            quantization.
        states: Whether the states of recurrent layers are inputs and outputs.
        arena: The largest arena of a file for ``tflite-micro``, in bytes.
    """

    formats: Sequence[str] = ()
    schemes: Sequence[str] = ()
    targets: Sequence[str] = ()
    attention: bool = True
    attention_layers: Sequence[str] = ()
    lowering: str = "auto"
    batch: int = 1
    states: bool = False
    arena: int | None = None

    def __post_init__(self) -> None:
        for name in ("formats", "schemes", "targets", "attention_layers"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.attention_layers and not self.attention:
            raise UsageError(
                "--attention and --no-attention contradict each other.", hint="Omit one of them."
            )

    def with_defaults(self, *, calibrated: bool, integers: bool = False) -> ConversionOptions:
        """The options with every format and scheme named.

        With ``integers``, and for Lite Micro, the defaults are TFLite and the schemes with
        integer activations.

        Raises :class:`UsageError` if a target or scheme is unknown.
        """
        of_targets = formats_for(self.targets)
        schemes = self.schemes
        if not schemes and (integers or MICRO in self.targets):
            schemes = tuple(item.scheme for item in RECIPES.values() if item.needs_calibration)
        return replace(
            self,
            formats=tuple(dict.fromkeys(self.formats))
            or of_targets
            or (("tflite",) if integers else FORMATS),
            schemes=expand_schemes(schemes, calibrated=calibrated),
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class QuantizationOptions:
    """How weights and activations are quantized, for all schemes of one conversion.

    Attributes:
        calibration: An ``.npz``, ``.npy`` or ``.csv`` file of real inputs on which ranges of
            activations are measured; ``int8`` and ``int16x8`` need it.
        raw_calibration: A file of raw inputs in its place, which the front end prepares.
        integer_io: Whether inputs and outputs of ``int8`` and ``int16x8`` files are integers.
        integer_only: Whether these files must have no float tensor at all.
        attention_precision: For the softmax and scores of attention: ``int8`` in ``int8`` files,
            ``int16`` in ``int16x8`` files, or ``float32`` in both; ``auto`` keeps the maps within
            their limits.
        runtime: The TFLite runtime the files are for: ``litert``, ``tflite-runtime`` or
            ``tflite-micro``.
        opset: The ONNX operator set, one of :data:`~edgeattn_converters.recipes.OPSETS`.
        allow_float_fallback: Whether a file is kept that does not achieve its scheme.
        precision: The precision of single layers' weights by layer name, as a mapping or as
            pairs: values of :data:`~edgeattn_converters.recipes.PRECISIONS`.
    """

    calibration: StrPath | None = None
    integer_io: bool = False
    integer_only: bool = False
    attention_precision: str = "auto"
    runtime: str = "litert"
    opset: int | None = None
    allow_float_fallback: bool = False
    precision: tuple[tuple[str, str], ...] = ()
    raw_calibration: StrPath | None = None

    def __post_init__(self) -> None:
        for name in ("calibration", "raw_calibration"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else os.fspath(value))
        if self.calibration is not None and self.raw_calibration is not None:
            raise UsageError(
                "--calibration and --raw-calibration exclude each other.",
                hint="Pass raw inputs with --raw-calibration, or prepared ones with --calibration.",
            )
        if self.opset is not None and self.opset not in OPSETS:
            raise UsageError(
                f"ONNX operator set {self.opset} is not supported.",
                hint=f"Choose one from {OPSETS[0]} to {OPSETS[-1]}.",
            )
        pairs = dict(self.precision)
        for layer, precision in pairs.items():
            if precision not in PRECISIONS:
                raise UsageError(
                    f"Layer {layer!r} has an unknown precision: {precision!r}.",
                    hint=f"Choose one of {', '.join(PRECISIONS)}.",
                )
        # Sorted pairs: hashable, and equal however they were given.
        object.__setattr__(self, "precision", tuple(sorted(pairs.items())))

    @property
    def calibrated(self) -> bool:
        """Whether there are calibration samples, prepared or raw."""
        return self.calibration is not None or self.raw_calibration is not None

    def check_files(self) -> None:
        """Raises :class:`UsageError` if the calibration file is missing."""
        _check_samples(self.calibration, "--calibration")
        _check_raw(self.raw_calibration, "--raw-calibration")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
