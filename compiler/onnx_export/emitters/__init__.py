"""One small function an operator: what it looks like in ONNX. Each registers itself."""
