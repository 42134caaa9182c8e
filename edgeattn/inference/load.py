"""A model of a bundle as a function, for programs on the device.

    import edgeattn

    model = edgeattn.load("model.edge")
    for reading in sensor:                  # one sample, in the shape of the model's input
        print(model(reading)["score"])

    for answer in model.answers(sensor):    # raw readings, if the bundle has a front end
        print(answer)                       # {"label": "walking", "score": 0.93}

Every call in a thread returns the same arrays, overwritten by the next call in that thread: copy
values that must last. Threads may share a model: calls run one at a time, and no call changes the
arrays of another thread.
To process a sequence in parts, convert with ``edgeattn convert --states`` and load with
``carry_states=True``. The model runs in this process, so a file that crashes its runtime ends the
program; ``edgeattn validate`` detects such files.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.lengths import bundles_by_length
from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import BundleError, RuntimeUnavailableError
from edgeattn.inference.any_length import ModelOfAnyLength
from edgeattn.inference.by_length import ModelByLength
from edgeattn.inference.model import Model
from edgeattn.inference.session import open_session
from edgeattn.runners import open_runner

Opened = TypeVar("Opened")


def load(
    bundle: Path | str,
    *,
    format: str | None = None,
    scheme: str | None = None,
    threads: int = 1,
    carry_states: bool = False,
    allow_non_finite: bool = False,
) -> Model:
    """Load the first artifact of ``bundle`` that matches and whose runtime is installed.

    If ``bundle`` is a folder with a bundle for each of several sequence lengths, every call selects
    the one for the length of its sample, see :class:`~edgeattn.inference.by_length.ModelByLength`.
    An artifact that accepts any length is a
    :class:`~edgeattn.inference.any_length.ModelOfAnyLength`.

    With ``carry_states`` each call starts from the final states of the call before it. NaN and
    infinity in inputs and outputs are errors of the call, except with ``allow_non_finite``. Raises
    :class:`BundleError` if the bundle is damaged, no artifact matches or there are no states to
    carry, :class:`RuntimeUnavailableError` if no runtime is installed, and :class:`ArtifactError`
    if the runtime cannot load the file.
    """
    folders = bundles_by_length(Path(bundle))
    if folders:
        if carry_states:
            raise BundleError(
                f"{bundle} has bundles for several sequence lengths, which do not share states.",
                hint=f"Load one of them: {next(iter(folders.values()))}",
            )
        load_one = functools.partial(
            load, format=format, scheme=scheme, threads=threads, allow_non_finite=allow_non_finite
        )
        return ModelByLength({steps: load_one(folder) for steps, folder in folders.items()})
    opened = Bundle.open(Path(bundle))
    candidates = opened.select((format,) if format else (), (scheme,) if scheme else ())
    if carry_states and not any(spec.state for spec in candidates[0].inputs):
        raise BundleError(
            f"{opened.path} has no states to carry.", hint="Convert the model again with --states."
        )
    front_end = opened.front_end()

    any_length = next((item for item in opened.manifest.artifacts if item.free_axes), None)

    def open_model(artifact: Artifact) -> Model:
        path, inputs, outputs = opened.artifact_path(artifact), artifact.inputs, artifact.outputs
        if artifact.free_axes and front_end is None:
            runner = open_runner(
                path, artifact.format, inputs, outputs, threads=threads, sha256=artifact.sha256
            )
            return ModelOfAnyLength(
                artifact, runner, carry_states=carry_states, allow_non_finite=allow_non_finite
            )
        session = open_session(
            path,
            artifact.format,
            inputs,
            outputs,
            threads=threads,
            sha256=artifact.sha256,
            runtime=artifact.runtime,
        )
        return Model(
            artifact,
            session,
            carry_states=carry_states,
            allow_non_finite=allow_non_finite,
            front_end=front_end,
            any_length=None if any_length is None else any_length.label,
        )

    return first_available(candidates, open_model)


def first_available(candidates: Iterable[Artifact], opener: Callable[[Artifact], Opened]) -> Opened:
    """The first of ``candidates`` whose runtime is installed, as ``opener`` returns it.

    Raises the first :class:`RuntimeUnavailableError` if no runtime is installed.
    """
    errors = []
    for artifact in candidates:
        try:
            return opener(artifact)
        except RuntimeUnavailableError as error:
            errors.append(error)
    raise errors[0]
