"""One step of a layer in one kernel: what a stream launches."""
