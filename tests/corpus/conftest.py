"""TensorFlow as in ``corpus.run``; warnings of TensorFlow and Keras are not ours."""

from __future__ import annotations

import pytest

from .run import set_environment

set_environment()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "corpus" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("default"))
