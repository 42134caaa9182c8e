"""The conversions of a model, shared by all tests of this folder."""

from __future__ import annotations

import pytest
from long_parameters import only
from quantized_models import MODELS, Conversions, ConversionsOf


@pytest.fixture(scope="session")
def conversions_of(tmp_path_factory: pytest.TempPathFactory) -> ConversionsOf:
    """The conversions of the model of a name."""
    by_name: dict[str, Conversions] = {}

    def of(name: str) -> Conversions:
        if name not in by_name:
            by_name[name] = Conversions(name, tmp_path_factory.mktemp(name))
        return by_name[name]

    return of


@pytest.fixture(scope="module", params=only(sorted(MODELS), "lstm", "transformer"))
def conversions(request: pytest.FixtureRequest, conversions_of: ConversionsOf) -> Conversions:
    return conversions_of(request.param)
