"""The table of a sweep: one row for each artifact and dataset, as Parquet."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from edgeattn_converters.sweep.execution import CONVERTED, NOT_CONVERTED, VALIDATED
from edgeattn_converters.sweep.jobs import Job
from edgeattn_converters.sweep.remote import RemoteFile
from edgeattn_converters.sweep.store import Document

Row = dict[str, Any]
TEXT, COUNT, NUMBER, FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
# Name, type and meaning of each column. docs/sweeps.md contains the same table.
COLUMNS = (
    ("model", TEXT, "name of the model in the plan"),
    ("model_file", TEXT, "URL of the model"),
    ("model_sha256", TEXT, "SHA-256 of the model"),
    ("parameters", COUNT, "number of parameters of the model"),
    ("target", TEXT, "runtime that the files are made for, if the plan names targets"),
    ("lowering", TEXT, "form of recurrences in TFLite files"),
    ("format", TEXT, "`tflite` or `onnx`"),
    ("scheme", TEXT, "requested scheme"),
    ("data", TEXT, "file name of the dataset; null if the plan has none for the model"),
    ("data_sha256", TEXT, "SHA-256 of the dataset"),
    ("status", TEXT, "`converted`, `not converted`, `not applicable` or `failed`"),
    ("reason", TEXT, "why an artifact was not converted, failed or does not pass"),
    ("verdict", TEXT, "verdict of `validate`"),
    ("conversion", TEXT, "whether the artifact is converted right"),
    ("recommended", FLAG, "whether it is the smallest artifact of its bundle that passes"),
    ("achieved_scheme", TEXT, "scheme whose arithmetic the file has"),
    ("bytes", COUNT, "size of the file"),
    ("max_abs_error", NUMBER, "largest absolute error of an output"),
    ("snr_db", NUMBER, "smallest signal-to-noise ratio of an output, in dB"),
    ("top1_agreement", NUMBER, "smallest share of equal top classes"),
    ("equal_values", NUMBER, "smallest share of equal values of an integer output"),
    ("attention_max_abs_error", NUMBER, "largest absolute error of an attention weight"),
    ("samples", COUNT, "number of samples with labels"),
    ("output", TEXT, "the output with the largest drop, to which the next columns belong"),
    ("metric", TEXT, "`accuracy` or `r2`"),
    ("reference_score", NUMBER, "score of Keras"),
    ("score", NUMBER, "score of the artifact"),
    ("drop", NUMBER, "score of Keras minus that of the artifact"),
    ("drop_low", NUMBER, "lower end of the 95% interval of the drop"),
    ("drop_high", NUMBER, "upper end of the 95% interval of the drop"),
    ("changed", NUMBER, "share of answers that differ from those of Keras"),
    ("runtime", TEXT, "runtime that computed the results, with its version"),
    ("bundle", TEXT, "the bundle, relative to the results"),
    ("path", TEXT, "the file in the bundle"),
    ("sha256", TEXT, "SHA-256 of the file"),
    ("versions", TEXT, "versions that the results depend on, as JSON"),
    ("key", TEXT, "content address of the result"),
)
SCHEMA = pa.schema(
    [pa.field(name, kind) for name, kind, _ in COLUMNS], metadata={"edgeattn.sweep": "1"}
)


def rows_of(job: Job, documents: Mapping[str, Document]) -> list[Row]:
    """The rows of a job whose results are in ``documents``, by key.

    Every pair of a format and a scheme has a row for each dataset, or one if there is no dataset,
    whatever became of it.
    """
    bundle = documents.get(job.key)
    if bundle is None:
        return []
    rows = []
    for data, key in _results(job, bundle):
        if key not in documents:
            continue
        rows += [
            {**_identity(job, bundle, data), **row, "key": key}
            for row in _outcomes(job, bundle, documents[key])
        ]
    return rows


def is_missing(job: Job, documents: Mapping[str, Document]) -> bool:
    """Whether a result of the job is not in ``documents``."""
    bundle = documents.get(job.key)
    return bundle is None or any(key not in documents for _, key in _results(job, bundle))


def _results(job: Job, bundle: Document) -> list[tuple[RemoteFile | None, str]]:
    """Each dataset, or none, and the key of its result. A failed bundle has only its own."""
    if not job.data:
        return [(None, job.key)]
    converted = bundle["status"] == CONVERTED
    return [(data, job.evaluation_key(data) if converted else job.key) for data in job.data]


def _identity(job: Job, bundle: Document, data: RemoteFile | None) -> Row:
    model = job.files["model"]
    return {
        "model": job.model,
        "model_file": model.url,
        "model_sha256": model.sha256,
        "parameters": bundle.get("parameters"),
        "target": job.target,
        "lowering": job.lowering,
        "data": None if data is None else data.name,
        "data_sha256": None if data is None else data.sha256,
        "versions": json.dumps(dict(job.versions), sort_keys=True),
    }


def _outcomes(job: Job, bundle: Document, result: Document) -> Iterator[Row]:
    """What became of each artifact; ``result`` is that of the bundle or of a dataset."""
    converted, compared, failures = (
        {(item["format"], item["scheme"]): item for item in items}
        for items in (bundle["artifacts"], result["artifacts"], bundle["failures"])
    )
    for format, scheme in itertools.product(job.formats, job.schemes):
        pair = (format, scheme)
        row: Row = {"format": format, "scheme": scheme, "status": bundle["status"]}
        if pair in compared and result["status"] in (CONVERTED, VALIDATED):
            row |= compared[pair]
        elif pair in converted:
            names = ("achieved_scheme", "path", "sha256", "bytes")
            row |= {name: converted[pair][name] for name in names}
            row |= {"status": result["status"], "reason": result["reason"]}
        elif pair in failures:
            row |= {"status": NOT_CONVERTED, "reason": failures[pair]["reason"]}
        else:
            row["reason"] = bundle["reason"]
        row["bundle"] = f"bundles/{job.key}.edge" if pair in converted else None
        yield row


def to_parquet(rows: Sequence[Row]) -> bytes:
    """The rows as a Parquet file; equal rows give equal bytes."""
    columns = []
    for name, kind, _ in COLUMNS:
        values = [row.get(name) for row in rows]
        if kind == NUMBER:  # documents have NaN and infinity as text
            values = [None if value is None else float(value) for value in values]
        columns.append(pa.array(values, kind))
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), sink)
    return sink.getvalue()


def from_parquet(content: bytes) -> list[Row]:
    """The rows of a table. Raises :class:`ValueError` if it is not that of a sweep."""
    table = pq.read_table(io.BytesIO(content))
    missing = [name for name in ("model", "format", "scheme") if name not in table.column_names]
    if missing:
        raise ValueError(f"it has no column {missing[0]!r}")
    rows: list[Row] = table.to_pylist()
    return rows
