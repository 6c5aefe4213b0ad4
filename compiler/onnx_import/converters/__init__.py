"""Converters of ONNX operators, by meaning; each file registers its own with `@converts`."""
