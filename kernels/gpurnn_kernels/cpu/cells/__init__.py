"""One step of each cell, forward and back: kernels that the loops over a sequence call."""
