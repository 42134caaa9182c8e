"""The first bytes by which files of a format are recognized, whatever their names are."""

# HDF5 format specification, superblock: such as Keras files with the suffix .h5.
HDF5 = b"\x89HDF\r\n\x1a\n"
# The header of the first entry of a zip file that is not empty: .keras files and packed bundles.
ZIP = b"PK\x03\x04"
# The file identifier of TFLite's FlatBuffer schema, after the offset of the root table.
TFLITE = b"TFL3"
_TFLITE_POSITION = 4


def is_tflite(head: bytes) -> bool:
    """Whether a file that begins with ``head``, of at least 8 bytes, is a TFLite file."""
    return head[_TFLITE_POSITION : _TFLITE_POSITION + len(TFLITE)] == TFLITE
