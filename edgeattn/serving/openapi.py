"""The OpenAPI description of a service: what the served model takes and answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeattn.frontend.answers import Answer
from edgeattn.frontend.description import FrontEnd, Step
from edgeattn.frontend.lookup import Hashing
from edgeattn.frontend.text import TextVectorization
from edgeattn.samples.states import sample_inputs
from edgeattn.serving.model import ServedModel
from edgeattn.tensors import TensorSpec
from edgeattn.version import __version__

Schema = dict[str, Any]
# Largest float32; readings and numbers that steps take are float32.
_LARGEST = float(np.finfo("float32").max)
# Python's white space and, as ranges of a regular expression, ASCII punctuation.
_SPACES = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
_PUNCTUATION = "!-/:-@\\[-`{-~"
# Statuses of errors of all requests, and of those for answers.
_ERRORS = {
    "400": "The request, or a sample in it, is malformed.",
    "408": "The body did not arrive in time.",
    "411": "The length of the body is missing.",
    "413": "The body is too large.",
    "415": "The body is neither JSON nor sound.",
    "421": "The service does not serve the host that the request names.",
    "500": "The runtime failed.",
    "503": "Too many requests are in progress, or the service is ending.",
    "504": "The request took too long.",
}
_GET_ERRORS = ("400", "421", "503")


def describe_service(model: ServedModel) -> Schema:
    """The document of ``/openapi.json``, OpenAPI 3.1."""
    numbers = {"anyOf": [_input_number(), {"type": "array", "items": _reference("Numbers")}]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "edgeattn", "version": __version__},
        "paths": {
            "/answer": {"post": _answer_operation(model.front_end)},
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
                "Numbers": numbers,
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


def _answer_operation(front_end: FrontEnd) -> Schema:
    sample, answer = _reference("Sample"), _reference("Answer")
    several = {"type": "array", "items": sample, "minItems": 1}
    content = {"oneOf": [_object({"sample": sample}), _object({"samples": several})]}
    answers = _object({"answers": {"type": "array", "items": answer, "minItems": 1}})
    operation = _get(
        "Answer one sample, or several",
        {"application/json": {"schema": {"anyOf": [answer, answers]}}},
        list(_ERRORS),
    )
    bodies: Schema = {"application/json": {"schema": content}}
    if front_end.window is not None and front_end.window.sampling_rate is not None:
        bodies["audio/wav"] = {}
    operation["requestBody"] = {"required": True, "content": bodies}
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
        return {"anyOf": _texts(steps[0])}
    if front_end.window is not None:
        columns = front_end.window.columns
        shape = (front_end.window.length, *(() if columns is None else (columns,)))
        return nested(shape, _input_number())
    if not steps:
        number = _number(spec, as_input=True)
        value = nested(spec.shape[1:], number)
        return {"anyOf": [value, number]} if spec.shape[1:] == (1,) else value
    numbers = _reference("Numbers")
    return {"anyOf": [*_texts(steps[0]), numbers]} if isinstance(steps[0], Hashing) else numbers


def _texts(step: Step) -> list[Schema]:
    """One text, or a list of them. At least one has a character that steps keep."""
    single = isinstance(step, TextVectorization) and step.split != "none"
    dropped = _SPACES
    if isinstance(step, TextVectorization) and "strip_punctuation" in step.standardize:
        dropped += _PUNCTUATION
    text = {"type": "string", "pattern": f"[^{dropped}]"}
    several: Schema = {"type": "array", "items": {"type": "string"}, "contains": text}
    return [text, several | ({"maxItems": 1} if single else {})]


def _input_number() -> Schema:
    """A float32; true and false stand for 1 and 0."""
    return {"type": ["number", "boolean"], "minimum": -_LARGEST, "maximum": _LARGEST}


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
    low: float
    high: float
    if kind in "iu":
        limits = np.iinfo(spec.dtype)
        name, low, high = "integer", int(limits.min), int(limits.max)
    else:
        largest = _LARGEST if spec.quantized else float(np.finfo(spec.dtype).max)
        name, low, high = "number", -largest, largest
    kinds = [name, "boolean"] if as_input else name
    return {"type": kinds, "minimum": low, "maximum": high}


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
