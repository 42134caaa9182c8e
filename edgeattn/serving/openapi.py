"""The OpenAPI description of a service: what the served model takes and answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeattn.frontend.answers import Answer
from edgeattn.frontend.description import FrontEnd
from edgeattn.frontend.lookup import Hashing
from edgeattn.samples.states import sample_inputs
from edgeattn.serving.model import ServedModel
from edgeattn.tensors import TensorSpec
from edgeattn.version import __version__

Schema = dict[str, Any]
_TEXT = ({"type": "string"}, {"type": "array", "items": {"type": "string"}})
# Statuses of errors of all requests, and of those for answers.
_ERRORS = {
    "400": "The request, or a sample in it, is malformed.",
    "408": "The body did not arrive in time.",
    "411": "The length of the body is missing.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "421": "The service does not serve the host that the request names.",
    "500": "The runtime failed.",
    "503": "Too many requests are in progress, or the service is ending.",
    "504": "The request took too long.",
}
_GET_ERRORS = ("400", "421", "503")


def describe_service(model: ServedModel) -> Schema:
    """The document of ``/openapi.json``, OpenAPI 3.1."""
    numbers = _reference("Numbers")
    return {
        "openapi": "3.1.0",
        "info": {"title": "edgeattn", "version": __version__},
        "paths": {
            "/answer": {"post": _answer_operation()},
            "/health": {"get": _get("The state of the service", _json("Health"), _GET_ERRORS)},
            "/metrics": {
                "get": _get(
                    "Counters in the text format of Prometheus",
                    {"text/plain": {"schema": {"type": "string"}}},
                    _GET_ERRORS,
                )
            },
            "/openapi.json": {
                "get": _get(
                    "This description",
                    {"application/json": {"schema": {"type": "object"}}},
                    _GET_ERRORS,
                )
            },
        },
        "components": {
            "schemas": {
                "Numbers": {"anyOf": [{"type": "number"}, {"type": "array", "items": numbers}]},
                "Sample": sample_schema(model),
                "Answer": answer_schema(model),
                "Health": _health_schema(),
                "Error": _object(
                    {
                        "error": _object(
                            {"message": {"type": "string"}, "hint": {"type": ["string", "null"]}}
                        )
                    }
                ),
            }
        },
    }


def _answer_operation() -> Schema:
    sample, answer = _reference("Sample"), _reference("Answer")
    several = {"type": "array", "items": sample, "minItems": 1}
    content = {"oneOf": [_object({"sample": sample}), _object({"samples": several})]}
    answers = _object({"answers": {"type": "array", "items": answer, "minItems": 1}})
    operation = _get(
        "Answer one sample, or several",
        {"application/json": {"schema": {"anyOf": [answer, answers]}}},
        list(_ERRORS),
    )
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": content}},
    }
    return operation


def _get(summary: str, content: Schema, errors: Sequence[str]) -> Schema:
    responses: Schema = {"200": {"description": summary, "content": content}}
    for status in errors:
        response: Schema = {"description": _ERRORS[status], "content": _json("Error")}
        if status == "503":
            response["headers"] = {"Retry-After": {"schema": {"type": "string"}}}
        responses[status] = response
    return {"summary": summary, "responses": responses}


def sample_schema(model: ServedModel) -> Schema:
    """One raw sample: a value, or an object of values by input name."""
    specs = sample_inputs(model.artifact.inputs)
    values = {spec.name: _value_schema(spec, model.front_end) for spec in specs}
    by_name = _object(values)
    return {"anyOf": [values[specs[0].name], by_name]} if len(specs) == 1 else by_name


def _value_schema(spec: TensorSpec, front_end: FrontEnd) -> Schema:
    steps = front_end.inputs.get(spec.name, ())
    if front_end.takes_text(spec.name):
        return {"anyOf": list(_TEXT)}
    if front_end.window is not None:
        columns = front_end.window.columns
        shape = (front_end.window.length, *(() if columns is None else (columns,)))
        return nested(shape, {"type": "number"})
    if not steps:
        number = _number(spec, as_input=True)
        value = nested(spec.shape[1:], number)
        return {"anyOf": [value, number]} if spec.shape[1:] == (1,) else value
    numbers = _reference("Numbers")
    return {"anyOf": [*_TEXT, numbers]} if isinstance(steps[0], Hashing) else numbers


def answer_schema(model: ServedModel) -> Schema:
    """The answer to one sample, or the outputs by name if the bundle describes no answer."""
    outputs = {spec.name: spec for spec in model.artifact.outputs}
    schemas = {name: nested(spec.shape[1:], _number(spec)) for name, spec in outputs.items()}
    answer = model.front_end.answer
    if answer is None:
        return _object(schemas)
    properties = _answer_properties(answer, outputs[answer.output or next(iter(outputs))])
    maps = {key.removeprefix("attention/"): schemas[key] for key in model.artifact.attention}
    if maps:
        properties["attention"] = next(iter(maps.values())) if len(maps) == 1 else _object(maps)
    return _object(properties)


def _answer_properties(answer: Answer, spec: TensorSpec) -> Schema:
    """The properties of an answer, without attention maps."""
    number: Schema = {"type": "number"}
    if answer.kind == "regression":
        shape = spec.shape[1:]
        return {"value": number if set(shape) <= {1} else nested(shape, number)}
    label: Schema = {"type": "integer", "minimum": 0}
    if answer.labels:
        label = {"type": "string", "enum": list(answer.labels)}
    labeled = {"type": "array", "items": _object({"label": label, "score": number})}
    if answer.kind == "multi_label":
        return {"labels": labeled}
    if answer.kind == "tagging":
        labels, scores = {"type": "array", "items": label}, {"type": "array", "items": number}
        return {"labels": labels, "scores": scores}
    return {"label": label, "score": number} | ({"top": labeled} if answer.top > 1 else {})


def nested(shape: Sequence[int | None], items: Schema) -> Schema:
    """Arrays of the lengths in ``shape``, each any length for None, with ``items`` inside."""
    schema = items
    for length in reversed(shape):
        schema = {"type": "array", "items": schema}
        if length is not None:
            schema |= {"minItems": length, "maxItems": length}
    return schema


def _number(spec: TensorSpec, *, as_input: bool = False) -> Schema:
    kind = "f" if spec.quantized else np.dtype(spec.dtype).kind
    if kind == "b":
        return {"enum": [True, False, 0, 1]} if as_input else {"type": "boolean"}
    if kind in "iu":
        limits = np.iinfo(spec.dtype)
        return {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}
    largest = float(np.finfo("float32" if spec.quantized else spec.dtype).max)
    return {"type": "number", "minimum": -largest, "maximum": largest}


def _object(properties: Schema) -> Schema:
    """An object with all of these properties, and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(name: str) -> Schema:
    return {"application/json": {"schema": _reference(name)}}


def _health_schema() -> Schema:
    names = ("format", "scheme", "runtime", "manifest", "edgeattn")
    return _object(
        {
            "status": {"const": "ok"},
            **{name: {"type": "string"} for name in names},
            "reload_failed": {"type": "boolean"},
        }
    )
