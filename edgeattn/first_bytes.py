"""The first bytes by which files of a format are recognized, whatever their names are."""

# HDF5 format specification, superblock: such as Keras files with the suffix .h5.
HDF5 = b"\x89HDF\r\n\x1a\n"
# The header of the first entry of a zip file that is not empty: .keras files and packed bundles.
ZIP = b"PK\x03\x04"
# The file identifier of TFLite's FlatBuffer schema, after the offset of the root table.
TFLITE = b"TFL3"
_TFLITE_POSITION = 4
_SMALLEST_ONNX = 16


def is_tflite(head: bytes) -> bool:
    """Whether a file that begins with ``head``, of at least 8 bytes, is a TFLite file."""
    return head[_TFLITE_POSITION : _TFLITE_POSITION + len(TFLITE)] == TFLITE


def may_be_onnx(head: bytes) -> bool:
    """Whether a file that begins with ``head`` can be an ONNX model, which has no magic number.

    The first field of ``ModelProto`` is the version of the format, a small number. After it comes
    the name of the producer, the operator sets or the graph; Core ML models and graphs of
    TensorFlow have a message in place of the name.
    """
    if len(head) <= _SMALLEST_ONNX or head[0] != 0x08 or head[1] >= 0x40:
        return False
    field, length = head[2], head[3]
    if field == 0x12:
        return head[4 : 4 + min(length, 16)].decode("ascii", "replace").isprintable()
    return field in (0x3A, 0x42)
