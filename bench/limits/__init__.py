"""The machine's limits, and the fastest that a case can be on it."""
