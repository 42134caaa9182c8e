"""What a worker does for a job: convert a model, validate the bundle, store the results."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.api.convert import convert
from edgeattn.api.result import plain
from edgeattn.api.validate import validate
from edgeattn.bundle.manifest import Artifact, Manifest
from edgeattn.errors import EdgeattnError, NoRecurrentLayerError, OutputError
from edgeattn.validation.recommendation import recommend_reported
from edgeattn_converters.sweep import remote
from edgeattn_converters.sweep.remote import RemoteFile
from edgeattn_converters.sweep.store import Document, Store
from edgeattn_converters.worker import processes

if TYPE_CHECKING:
    from edgeattn.validation.report import ArtifactReport

CONVERTED, NOT_CONVERTED = "converted", "not converted"
NOT_APPLICABLE, FAILED = "not applicable", "failed"
VALIDATED = "validated"


def run(job: Mapping[str, Any], results: str) -> list[Document]:
    """The documents of a job, which are in the store when this returns.

    A document that is in the store already is not computed again. Raises :class:`EdgeattnError` if
    files cannot be read or stored; such a job has no result.
    """
    store = Store(results)
    with (
        processes.kept(),
        tempfile.TemporaryDirectory(prefix="edgeattn-sweep-") as name,
    ):
        workspace = _Workspace(Path(name), job, store)
        bundle = workspace.known(job["key"]) or _stored(store, _converted(workspace))
        documents = [bundle]
        if bundle["status"] == CONVERTED:
            for data in job["data"]:
                documents.append(
                    workspace.known(data["key"]) or _stored(store, _validated(workspace, data))
                )
    return documents


def failure(key: str, error: EdgeattnError, status: str = FAILED) -> Document:
    """The document of a result that is an error."""
    reason = " ".join(filter(None, (error.message, error.hint)))
    return {"key": key, "status": status, "reason": reason, "artifacts": [], "failures": []}


def _stored(store: Store, document: Document) -> Document:
    store.write_document(document)
    return document


class _Workspace:
    """The files of a job on the disk of the worker, copied when they are needed."""

    def __init__(self, folder: Path, job: Mapping[str, Any], store: Store) -> None:
        self.job, self.store, self._folder = job, store, folder
        self._bundle: Path | None = None

    def known(self, key: str) -> Document | None:
        """The document of a result that is in the store."""
        return None if key in self.job["discarded"] else self.store.document(key)

    def file(self, role: str) -> Path | None:
        entry = self.job["files"].get(role)
        return None if entry is None else self.copy(role, entry)

    @property
    def architecture(self) -> str | None:
        """The option of convert: a file, and the function in it if the plan names one."""
        file, function = self.file("architecture"), self.job["function"]
        return None if file is None else ":".join(filter(None, (str(file), function)))

    def copy(self, role: str, entry: Mapping[str, str]) -> Path:
        target = self._folder / role / entry["name"]
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            remote.download(RemoteFile(**entry), target.parent)
        return target

    def failure(self, key: str, error: EdgeattnError, status: str = FAILED) -> Document:
        return self.without_folder(failure(key, error, status))

    def without_folder(self, document: Mapping[str, Any]) -> Document:
        """``document`` without the name of the folder, which differs from run to run."""
        return {
            name: value.replace(f"{self._folder}/", "") if isinstance(value, str) else value
            for name, value in document.items()
        }

    @property
    def new_bundle(self) -> Path:
        self._bundle = self._folder / f"{self.job['key']}.edge"
        return self._bundle

    @property
    def bundle(self) -> Path:
        if self._bundle is None:
            self._bundle = self.store.read_bundle(self.job["key"], self._folder)
        return self._bundle


def _converted(workspace: _Workspace) -> Document:
    """The result of the conversion, whose bundle is in the store."""
    job, key = workspace.job, workspace.job["key"]
    arguments: dict[str, Any] = dict(job["options"])
    arguments |= {role: workspace.file(role) for role in job["files"]}
    arguments["architecture"] = workspace.architecture
    model = arguments.pop("model")
    start = time.monotonic()
    try:
        result = convert(model, workspace.new_bundle, **arguments)
    except OutputError:
        raise  # a full disk is no property of the model
    except EdgeattnError as error:
        excluded = isinstance(error, NoRecurrentLayerError)
        return workspace.failure(key, error, NOT_APPLICABLE if excluded else FAILED)
    conversion = result.conversions[0]
    workspace.store.write_bundle(key, conversion.bundle.path)
    manifest = conversion.bundle.manifest
    return {
        "key": key,
        "status": CONVERTED,
        "reason": None,
        "parameters": manifest.model["parameters"],
        "artifacts": _artifacts(conversion.report.artifacts, manifest),
        "failures": [workspace.without_folder(item) for item in conversion.failures],
        "seconds": round(time.monotonic() - start, 1),
    }


def _validated(workspace: _Workspace, data: Mapping[str, Any]) -> Document:
    """The result of the validation on a dataset."""
    job = workspace.job
    start = time.monotonic()
    samples = workspace.copy(data["key"], data["file"])
    try:
        result = validate(
            workspace.bundle,
            data=samples,
            model=workspace.file("model"),
            custom_objects=workspace.file("custom_objects"),
            architecture=workspace.architecture,
            signature=job["options"].get("signature"),
            trust=job["options"]["trust"],
            ignore=job["options"]["ignore"],
            max_drop=job["max_drop"],
            jobs=1,
        )
    except OutputError:
        raise
    except EdgeattnError as error:
        return workspace.failure(data["key"], error)
    return {
        "key": data["key"],
        "status": VALIDATED,
        "reason": None,
        "artifacts": _artifacts(result.artifacts, result.bundle.manifest),
        "seconds": round(time.monotonic() - start, 1),
    }


def _artifacts(reports: Sequence[ArtifactReport], manifest: Manifest) -> list[dict[str, Any]]:
    """What the table contains about each artifact."""
    best = recommend_reported(reports, manifest).candidate
    return [
        {
            **_stored_file(item.artifact),
            "verdict": item.verdict,
            "reason": item.shortcoming,
            "conversion": item.conversion,
            "runtime": item.runtime,
            **{name: plain(value) for name, value in item.headline.items()},
            **_task(item),
            "recommended": best is not None and best.artifact == item.artifact,
        }
        for item in reports
    ]


def _stored_file(artifact: Artifact) -> dict[str, Any]:
    return {
        "format": artifact.format,
        "scheme": artifact.scheme,
        "achieved_scheme": artifact.achieved.get("scheme", artifact.scheme),
        "path": artifact.path,
        "sha256": artifact.sha256,
        "bytes": artifact.bytes,
    }


def _task(item: ArtifactReport) -> dict[str, Any]:
    """The score of the output with the largest drop."""
    results = () if item.task is None else item.task.results
    if not results:
        return {}
    worst = max(results, key=lambda result: (result.drop, result.output))
    return {
        "samples": worst.samples,
        "output": worst.output,
        "metric": worst.metric,
        "reference_score": plain(worst.reference_score),
        "score": plain(worst.artifact_score),
        "drop": plain(worst.drop),
        "drop_low": plain(worst.interval[0]),
        "drop_high": plain(worst.interval[1]),
        "changed": worst.changed,
    }
