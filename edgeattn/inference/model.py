"""A model of a bundle as a function, for programs that run on the device.

    import edgeattn

    model = edgeattn.load("model.edge")
    for reading in sensor:                  # one sample, in the shape of the model's input
        print(model(reading)["score"])

The arrays that come back are the same ones at every call, overwritten by the next: copy what is
to be kept. A sequence that comes in parts goes through an artifact with states (``edgeattn convert
--states``), loaded with ``carry_states=True``. Nothing here guards against a file that crashes its
runtime; ``edgeattn validate`` has said so before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import BundleError, RuntimeUnavailableError, SampleError
from edgeattn.tensors import Array, Tensors, TensorSpec

if TYPE_CHECKING:
    from edgeattn.runners.session import Direct


def load(
    bundle: Path | str,
    *,
    format: str | None = None,
    scheme: str | None = None,
    threads: int = 1,
    carry_states: bool = False,
) -> Model:
    """The first artifact of ``bundle`` that fits and whose runtime is here, ready to be called.

    With ``carry_states`` each call goes on where the one before it ended. Every file is held to the
    manifest's hashes first. Raises :class:`BundleError` where that fails, where nothing fits or
    there are no states, :class:`RuntimeUnavailableError` where no runtime is installed,
    :class:`ArtifactError` where the runtime cannot load the file.
    """
    from edgeattn.runners.session import open_direct

    opened = Bundle.open(Path(bundle))
    candidates = opened.select((format,) if format else (), (scheme,) if scheme else ())
    if carry_states and not any(spec.state for spec in candidates[0].inputs):
        raise BundleError(
            f"{opened.path} has no states to carry: every sequence starts clean in it.",
            hint="Make one that has them: edgeattn convert MODEL --states",
        )
    missing: RuntimeUnavailableError | None = None
    for artifact in candidates:
        path = opened.artifact_path(artifact)
        ends = (artifact.inputs, artifact.outputs)
        try:
            direct = open_direct(path, artifact.format, *ends, threads=threads)
            return Model(artifact, direct, carry_states=carry_states)
        except RuntimeUnavailableError as error:
            missing = missing or error
    raise missing or BundleError(f"{opened.path} has no artifacts.")


# A dict is known at once, another mapping by asking for all that it can.
MAPPINGS = (dict, Mapping)


class Model:
    """An artifact as a function of one sample; real numbers go in and come out."""

    def __init__(self, artifact: Artifact, direct: Direct, *, carry_states: bool = False) -> None:
        self.artifact = artifact
        self.runtime = direct.runtime
        self.inputs = artifact.inputs
        self.outputs = artifact.outputs
        self._invoke = direct.invoke
        writers = tuple(map(_Writer, self.inputs, direct.feeds))
        self._writers = tuple(writer for writer in writers if writer.spec.state is None)
        self._only = self._writers[0] if len(self._writers) == 1 else None
        readers = tuple(map(_Reader, self.outputs, direct.fetches))
        # Those without a scale are in place as soon as the runtime is done.
        self._readers = tuple(reader for reader in readers if reader.spec.quantized)
        self._answer: Tensors = {reader.spec.name: reader.real for reader in readers}
        self._states = tuple(
            (writer, self._answer[writer.spec.state])
            for writer in writers
            if writer.spec.state is not None
        )
        self._carry = carry_states
        self._starts = True

    def __call__(self, sample: Array | Mapping[str, Array]) -> Tensors:
        """The outputs by name for one sample: an array, or where there are several inputs a
        mapping of them by name.

        With its batch axis of one or without. A state that the mapping does not hold is zero, or,
        where states are carried, what the last call left. The arrays are the same at every call.
        """
        if self._states:
            self._write_states(sample)
        # First what is asked for most: to know a mapping that is no dict takes longer than to copy
        # a small array.
        if self._only is not None and isinstance(sample, np.ndarray):
            self._only.write(sample)
        elif isinstance(sample, MAPPINGS):
            for writer in self._writers:
                if writer.name not in sample:
                    there = ", ".join(map(repr, sample)) or "nothing"
                    raise SampleError(f"Input {writer.spec} is missing: there is {there}.")
                writer.write(sample[writer.name])
        elif self._only is not None:
            self._only.write(sample)
        else:
            names = ", ".join(writer.spec.name for writer in self._writers)
            raise SampleError(f"The model has several inputs: give a mapping of {names}.")
        self._invoke()
        for reader in self._readers:
            reader.read()
        return self._answer

    def _write_states(self, sample: Array | Mapping[str, Array]) -> None:
        for writer, final in self._states:
            if isinstance(sample, Mapping) and writer.spec.name in sample:
                writer.write(sample[writer.spec.name])
            elif self._carry and not self._starts:
                writer.write(final)
            else:
                writer.clear()
        self._starts = False

    def reset(self) -> None:
        """The next call starts a sequence anew; without ``carry_states`` every call does."""
        self._starts = True


class _Writer:
    """Puts a sample where the runtime reads it, quantized where it must be."""

    def __init__(self, spec: TensorSpec, feed: Array) -> None:
        self.spec = spec
        self.name = spec.name
        self._quantized = spec.quantized
        self._feed = feed
        self._sample = feed[0]
        self._shapes = (feed.shape, feed.shape[1:]) if len(feed) == 1 else (feed.shape,)
        floats = feed.dtype.kind == "f"
        self._casting: Literal["same_kind", "safe"] = "same_kind" if floats else "safe"
        self._scale = spec.scale or 1.0
        if spec.quantized:
            self._real = np.zeros(feed.shape)
            self._limits = np.iinfo(feed.dtype)

    def write(self, sample: Array) -> None:
        if not isinstance(sample, np.ndarray):
            sample = np.asarray(sample)
        if sample.shape not in self._shapes:
            raise SampleError(
                f"Input {self.spec.name} takes one sample of shape {self._shapes[-1]}; "
                f"it came as {sample.shape}."
            )
        if self._quantized:
            self._quantize(sample)
            return
        target = self._feed if sample.ndim == self._feed.ndim else self._sample
        if sample.dtype == target.dtype:
            target[...] = sample
        elif np.can_cast(sample.dtype, target.dtype, self._casting):
            np.copyto(target, sample, casting=self._casting)
        else:
            self._copy_exactly(target, sample)

    def clear(self) -> None:
        """Zero, whatever integer stands for it."""
        self._feed[...] = (self.spec.zero_point or 0) if self.spec.quantized else 0

    def _copy_exactly(self, target: Array, sample: Array) -> None:
        """Whole numbers of another dtype, as token numbers often are."""
        narrowed = sample.astype(target.dtype)
        if not np.array_equal(narrowed, sample):
            raise SampleError(
                f"Input {self.spec.name} is of {target.dtype}, and what came, of "
                f"{sample.dtype}, does not fit into it."
            )
        np.copyto(target, narrowed)

    def _quantize(self, sample: Array) -> None:
        """As :func:`edgeattn.tensors.quantize`, into arrays that are there."""
        real = self._real
        np.divide(sample, self._scale, out=real)
        np.rint(real, out=real)
        np.add(real, self.spec.zero_point or 0, out=real)
        np.clip(real, self._limits.min, self._limits.max, out=real)
        np.copyto(self._feed, real, casting="unsafe")


class _Reader:
    """An output as real numbers, in an array that is there."""

    def __init__(self, spec: TensorSpec, fetch: Array) -> None:
        self.spec = spec
        self._fetch = fetch
        self.real = np.zeros(fetch.shape, np.float32) if spec.quantized else fetch
        self._wide = np.zeros(fetch.shape) if spec.quantized else fetch
        self._scale = spec.scale or 1.0

    def read(self) -> None:
        """As :func:`edgeattn.tensors.dequantize`."""
        np.copyto(self._wide, self._fetch)
        np.subtract(self._wide, self.spec.zero_point or 0, out=self._wide)
        np.multiply(self._wide, self._scale, out=self._wide)
        np.copyto(self.real, self._wide, casting="same_kind")
