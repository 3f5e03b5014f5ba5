"""One file for each command of `python -m bench` on the CPU."""
