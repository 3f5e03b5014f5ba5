"""Layers as other frameworks' models."""
