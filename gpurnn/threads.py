"""How many threads a call may use, process-wide."""


def set_num_threads(count: int) -> None:
    """Lets every later call use `count` >= 1 threads; results are the same bits for any count.

    Raises ValueError below 1, TypeError for anything but an integer.
    """
    from gpurnn_kernels import cpu

    cpu.set_num_threads(count)


def get_num_threads() -> int:
    """The number of threads that calls use: what was set, or GPURNN_NUM_THREADS, or the CPUs this process may use.

    Raises ValueError if GPURNN_NUM_THREADS is not an integer >= 1.
    """
    from gpurnn_kernels import cpu

    return cpu.get_num_threads()
