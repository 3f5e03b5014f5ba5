"""Layers out of ONNX models."""
