"""``/openapi.json``, compared with schemas worked out by hand."""

import json
import re

from artifacts import write_dense_bundle
from front_ends import COUNTS, WINDOWS, add_front_end
from service_client import serving


def document(bundle):
    with serving(bundle.path) as service:
        return service.get("/openapi.json").document


def row(count, kinds="number"):
    return {"type": "array", "items": {"type": kinds}, "minItems": count, "maxItems": count}


# True and false are numbers of an input, as in NumPy.
INPUT = row(3, ["number", "boolean"])


def without_ranges(schema):
    """Without the range of float32, which numbers of outputs and prepared inputs have."""
    if isinstance(schema, dict):
        return {
            key: without_ranges(value)
            for key, value in schema.items()
            if not (key in ("minimum", "maximum") and isinstance(value, float))
        }
    return [without_ranges(item) for item in schema] if isinstance(schema, list) else schema


def closed(**properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def test_description(tmp_path):
    bundle = write_dense_bundle(tmp_path / "a.edge", formats=("onnx",))
    description = without_ranges(document(bundle))
    assert description["openapi"] == "3.1.0"
    assert {path: list(item) for path, item in description["paths"].items()} == {
        "/answer": ["post"],
        "/health": ["get"],
        "/metrics": ["get"],
        "/openapi.json": ["get"],
    }
    schemas = description["components"]["schemas"]
    assert schemas["Sample"] == {"anyOf": [INPUT, closed(x=INPUT)]}
    assert schemas["Answer"] == closed(score=row(2))
    # Every reference leads to a schema.
    names = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(description))
    assert set(names) <= set(schemas)

    add_front_end(bundle, WINDOWS)
    schemas = without_ranges(document(bundle))["components"]["schemas"]
    assert schemas["Sample"] == {"anyOf": [INPUT, closed(x=INPUT)]}
    label = {"type": "string", "enum": ["low", "high"]}
    assert schemas["Answer"] == closed(label=label, score={"type": "number"})

    add_front_end(bundle, COUNTS)
    schemas = without_ranges(document(bundle))["components"]["schemas"]
    (text, several), by_name = schemas["Sample"]["anyOf"][0]["anyOf"], schemas["Sample"]["anyOf"][1]
    assert by_name == closed(x={"anyOf": [text, several]})
    assert several == {"type": "array", "items": {"type": "string"}, "contains": text}
    characters = [chr(number) for number in range(0xD800)]
    pattern = re.compile(text["pattern"])
    assert [c for c in characters if not pattern.search(c)] == [
        c for c in characters if c.isspace()
    ]
    assert schemas["Answer"] == closed(value=row(2))
