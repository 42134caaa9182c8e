"""``Bidirectional`` of Keras 1 and 2, whose forward layer may run backwards."""

from typing import Any

from edgeattn_converters.loading.config_inspection import Config


def with_both_directions(config: Config) -> dict[str, Any]:
    """Return the config with a backward layer if the forward layer runs backwards.

    In Keras 1 and 2, each layer runs in the direction that the other one does not. In Keras 3, a
    backward layer that the config does not contain always runs backwards.
    """
    forward = config.get("layer")
    if not isinstance(forward, dict) or config.get("backward_layer") is not None:
        return dict(config)
    inner = forward.get("config")
    if not isinstance(inner, dict) or not inner.get("go_backwards"):
        return dict(config)
    name = str(inner.get("name")).removeprefix("backward_")
    other = {**inner, "go_backwards": False, "name": f"backward_{name}"}
    return {**config, "backward_layer": {**forward, "config": other}}
