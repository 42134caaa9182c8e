"""Lambda layers, recognized from their bytecode, which is never executed."""
