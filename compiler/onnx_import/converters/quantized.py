"""Converters of foreign quantization: QuantizeLinear, DequantizeLinear, the QLinear operators."""
