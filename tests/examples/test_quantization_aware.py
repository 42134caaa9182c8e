"""The example of fine-tuning: a map that int8 breaks, and that is cured."""

import numpy as np
import pytest

pytestmark = pytest.mark.long


def test_a_map_that_int8_breaks_is_cured(tmp_path, modules):
    import keras

    import quantization_aware as example
    from edgeattn.layers import attention_maps

    before, after, tuned = example.compare(tmp_path)
    assert example.describe(before).startswith("fail")
    assert example.describe(after).startswith("pass")
    assert (before.exit_code, after.exit_code) == (1, 0)
    for conversion in (before, after):
        (artifact,) = conversion.bundle.manifest.artifacts
        assert not artifact.achieved["computes_in"].get("float32")
    # Attention in int8 is where the first model looks, not only the second one.
    was, now = (item["attention/look"]["max_abs_error"] for item in (tuned.before, tuned.after))
    assert now < 0.05 < was
    x, y = example.sequences(500, seed=4)
    first, second = (
        keras.saving.load_model(tmp_path / f"{name}.keras") for name in ("before", "after")
    )
    maps = [attention_maps(model, x) for model in (first, second)]
    assert np.abs(maps[0] - maps[1]).max() < 0.05
    errors = [np.abs(model.predict(x, verbose=0) - y).mean() for model in (first, second)]
    assert errors[1] < errors[0] + 0.005
