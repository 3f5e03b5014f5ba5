"""gpurnn inside other libraries: one module for each, imported by name, which imports its library."""
