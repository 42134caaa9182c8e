"""Layers of classes of the user that have the name of a layer of Keras.

Files of the HDF5 format and of Keras 2 contain no module of a class, so only the arguments show
whose it is. Without them, Keras would compute another function, without an error if the weights
have the same shapes.
"""

from edgeattn_converters.loading.config_inspection import Config

# Arguments that Keras stores for each layer of these classes, in all versions that have them. Own
# classes have these names: those of Keras are newer than most programs with attention.
STORED = {
    "AdditiveAttention": ("use_scale",),
    "Attention": ("use_scale",),
    "GroupNormalization": ("groups", "epsilon"),
    "GroupQueryAttention": ("head_dim", "num_query_heads"),
    "LayerNormalization": ("epsilon",),
    "MultiHeadAttention": ("num_heads", "key_dim"),
    "RMSNormalization": ("epsilon",),
    "SpectralNormalization": ("power_iterations",),
    "UnitNormalization": ("axis",),
}


def lacking(class_name: str, config: Config) -> str:
    """The first argument that Keras stores for a class and that a layer lacks; empty if none."""
    return next((name for name in STORED.get(class_name, ()) if name not in config), "")
