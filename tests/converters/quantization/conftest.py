"""The conversions of one model, shared by all tests of a module."""

from __future__ import annotations

import pytest
from quantized_models import MODELS, Conversions


@pytest.fixture(scope="module", params=sorted(MODELS))
def conversions(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Conversions:
    return Conversions(request.param, tmp_path_factory.mktemp(request.param))
