"""One workshop a model for all tests of a module: conversions are shared."""

from __future__ import annotations

import pytest
from weighty_models import MODELS, Workshop


@pytest.fixture(scope="module", params=sorted(MODELS))
def workshop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(request.param, tmp_path_factory.mktemp(request.param))
