"""How lower-to-integer recognizes and emits integer operators."""
