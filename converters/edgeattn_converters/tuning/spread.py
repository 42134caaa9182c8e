"""Candidates that do not depend on each other, evaluated by the workers of a Dask scheduler.

The results are stored as those of a search on this machine, which then finds them.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeattn import progress
from edgeattn.bundle.manifest import Manifest
from edgeattn.cluster.scheduler import open_cluster
from edgeattn.errors import DeviceError, EdgeattnError, UsageError
from edgeattn.evaluation.dataset import InMemoryDataset
from edgeattn.metrics.limits import Limit
from edgeattn.printable import counted
from edgeattn_converters.options import ModelSource, StrPath
from edgeattn_converters.tuning.evaluation import (
    CandidateEvaluator,
    ResultStore,
    files_without_artifacts,
)
from edgeattn_converters.tuning.search import Candidate, Result
from edgeattn_converters.worker.client import ConversionWorker

# The fields of a source that name files.
_FILES = (
    *("path", "samples", "custom_objects", "architecture", "preprocess", "labels"),
    *("raw_samples", "sized_by"),
)


@dataclass(frozen=True)
class CandidateRequest:
    """A candidate to convert and evaluate, with the task, on a machine that has the model's files.

    ``files`` are those of the bundle without artifacts, by name.
    """

    candidate: Candidate
    source: ModelSource
    calibration: str | None
    manifest: Manifest
    dataset: InMemoryDataset | None
    limits: tuple[Limit, ...]
    files: tuple[tuple[str, bytes], ...]


def evaluate_request(request: CandidateRequest) -> tuple[Result, bytes | None]:
    """The result, and the content of the candidate's file, if it could be converted."""
    missing = _missing_file(request)
    if missing is not None:
        raise UsageError(
            f"A Dask worker has no file {missing}.",
            hint="Put the model and the files that belong to it on a disk that all workers share.",
        )
    with (
        tempfile.TemporaryDirectory(prefix="edgeattn-tune-") as name,
        ConversionWorker() as worker,
    ):
        folder = Path(name)
        for file, own in request.files:
            (folder / file).write_bytes(own)
        evaluator = CandidateEvaluator(
            worker, folder, request.source, request.calibration, request.manifest
        )
        evaluator.dataset, evaluator.limits = request.dataset, request.limits
        result = evaluator.evaluate(request.candidate, True)
        content = (folder / result.artifact["path"]).read_bytes() if result.artifact else None
        return result, content


def absolute_source(source: ModelSource) -> ModelSource:
    """``source`` for processes with another working folder."""
    files: dict[str, Any] = {name: _absolute(getattr(source, name)) for name in _FILES}
    return replace(source, **files)


def _absolute(path: StrPath | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _missing_file(request: CandidateRequest) -> str | None:
    """The first file of a request that this machine does not have."""
    files = [getattr(request.source, name) for name in _FILES]
    # FILE.py:FUNCTION is a file too.
    files = [str(file).rpartition(".py:")[0] + ".py" if ".py:" in str(file) else file
             for file in (*files, request.calibration) if file is not None]  # fmt: skip
    return next((str(file) for file in files if not Path(file).exists()), None)


def evaluate_on_dask(
    address: str, evaluator: CandidateEvaluator, store: ResultStore, candidates: Sequence[Candidate]
) -> None:
    """Evaluate the candidates whose results are not stored, and store these.

    Raises the error of the first candidate that cannot be evaluated, and :class:`DeviceError` if
    one ends every worker.
    """
    missing = [item for item in candidates if store.get(item, True) is None]
    if not missing:
        return
    files = files_without_artifacts(evaluator.folder)
    calls = {candidate: (_request(evaluator, candidate, files),) for candidate in missing}
    with open_cluster(address) as cluster:
        cluster.check_versions()
        with contextlib.closing(cluster.run(evaluate_request, calls)) as ended:
            for number, call in enumerate(ended, 1):
                if call.died:
                    raise DeviceError(
                        f"Every Dask worker that evaluated {call.item.label} died.",
                        hint="Start workers with more memory.",
                    )
                if isinstance(call.error, EdgeattnError):
                    raise call.error
                if call.error is not None:
                    raise EdgeattnError(f"{type(call.error).__name__}: {call.error}")
                result, content = call.value
                if content is not None:
                    (evaluator.folder / result.artifact["path"]).write_bytes(content)
                store.add(result, True)
                progress.report(f"{number} of {counted(len(missing), 'candidate')}")


def _request(
    evaluator: CandidateEvaluator, candidate: Candidate, files: tuple[tuple[str, bytes], ...]
) -> CandidateRequest:
    return CandidateRequest(
        candidate,
        absolute_source(evaluator.source),
        _absolute(evaluator.calibration),
        evaluator.manifest,
        evaluator.dataset,
        evaluator.limits,
        files,
    )
