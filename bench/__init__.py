"""Measures the machine, gpurnn and its peers side by side: `python -m bench --help`, and README.md beside this file."""
