"""Layers out of Keras: live objects, .keras and .h5 files."""
