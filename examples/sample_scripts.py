"""The training scripts of the sample models."""

import importlib.util
from pathlib import Path
from typing import Any

SAMPLE_MODELS = Path(__file__).parents[1] / "sample_models"


def sample_script(name: str) -> Any:
    """``sample_models/NAME/train.py`` as a module."""
    path = SAMPLE_MODELS / name / "train.py"
    spec = importlib.util.spec_from_file_location(f"train_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
