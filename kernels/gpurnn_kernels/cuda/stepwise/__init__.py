"""Sequences step by step: products by cuBLAS, a pointwise kernel a step."""
