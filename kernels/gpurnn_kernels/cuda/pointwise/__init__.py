"""The pointwise part of a step, and sums over whole sequences: one kernel a cell and pass."""
