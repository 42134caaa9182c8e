"""The layer class of the PyPI package ``attention`` 4.1 and 5.0, read as our own ``Attention``.

Its name is that of Keras' own layer; its config tells them apart: ``units`` against ``use_scale``.
The package ignored masks, so ours is told to.
"""

from __future__ import annotations

from typing import Any

from edgeattn_converters.loading.migrate.context import Config

REGISTERED = "edgeattn>Attention"
# What its version 4 called the inner layers.
PARTS = {"attention_score_vec": "luong_w", "attention_vector": "w_c"}
_BASE = frozenset({"name", "trainable", "dtype", "batch_input_shape", "batch_shape", "dynamic"})


def recognises(class_name: str, config: Config) -> bool:
    """Whether this is the package's layer: ``units``, perhaps ``score``, and nothing else."""
    own = set(config) - _BASE
    return (
        class_name.rsplit(">", 1)[-1] == "Attention"
        and own in ({"units"}, {"units", "score"})
        and config.get("score", "luong") in ("luong", "bahdanau")
    )


def layer(config: Config) -> dict[str, Any]:
    """The config of our layer that computes the same."""
    return {
        "name": config.get("name", "attention"),
        "trainable": config.get("trainable", True),
        "units": config["units"],
        "score": config.get("score", "luong"),
        "use_mask": False,
    }
