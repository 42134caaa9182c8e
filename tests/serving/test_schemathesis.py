"""Requests that schemathesis derives from the OpenAPI description, on the loopback interface.

Requests that fit the description are answered with what it describes, and others are refused.
"""

import pytest
from artifacts import write_dense_bundle
from front_ends import COUNTS, WINDOWS, add_front_end
from service_client import serving

from edgeattn.frontend.answers import Answer
from edgeattn.frontend.description import FrontEnd
from edgeattn.frontend.text import TextVectorization

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
checks = pytest.importorskip("schemathesis.checks")
hypothesis = pytest.importorskip("hypothesis")

pytestmark = pytest.mark.long

SENTENCES = FrontEnd(
    {"x": (TextVectorization(("a", "b"), output_mode="count"),)},
    answer=Answer(labels=("no", "yes")),
)
SETTINGS = hypothesis.settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.mark.parametrize(
    "front_end", [None, WINDOWS, COUNTS, SENTENCES], ids=["none", "windows", "words", "text"]
)
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_the_service_does_what_its_description_states(tmp_path, front_end, mode):
    bundle = write_dense_bundle(tmp_path / "a.edge", formats=("onnx",))
    if front_end is not None:
        add_front_end(bundle, front_end)
    with serving(bundle.path) as service:
        url = f"http://127.0.0.1:{service.port}"
        description = schemathesis.openapi.from_dict(service.get("/openapi.json").document)
        paths = []
        for result in description.get_all_operations():
            operation = result.ok()
            paths.append(operation.path)
            if mode is schemathesis.GenerationMode.NEGATIVE and operation.path != "/answer":
                continue  # the others take nothing that could be wrong

            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            @SETTINGS
            def exchange(case):
                response = case.call_and_validate(url, excluded_checks=[checks.not_a_server_error])
                # Numbers that fit a float32 can overflow in the model.
                assert response.status_code < 500 or "NaN or infinite" in response.text

            exchange()
        assert sorted(paths) == ["/answer", "/health", "/metrics", "/openapi.json"]
        assert all("NaN or infinite" in line for line in service.log)
