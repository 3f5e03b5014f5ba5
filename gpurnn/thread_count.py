"""The number of threads that a call may use: for the process, and for the calls of one thread."""

from contextlib import AbstractContextManager

from gpurnn_kernels import cpu  # light: Numba comes with the first use of one of its names


def set_num_threads(count: int) -> None:
    """Lets every later call of the process use `count` >= 1 threads; results are the same bits for any count.

        gpurnn.set_num_threads(4)

    Raises ValueError below 1, TypeError for anything but an integer.
    """
    cpu.set_num_threads(count)


def get_num_threads() -> int:
    """Gives the number of threads that calls of this thread use.

    It is what the innermost `with gpurnn.threads(n):` says, else what `set_num_threads` has set, else GPURNN_NUM_THREADS, else
    OMP_NUM_THREADS, else NUMBA_NUM_THREADS, else the CPUs that this process may use, by its affinity and by the CPU quotas of
    its control groups. A call uses fewer while others need the CPUs.

    Raises ValueError if GPURNN_NUM_THREADS is not an integer >= 1.
    """
    return cpu.get_num_threads()


def threads(count: int) -> AbstractContextManager[None]:
    """Lets the calls that this thread makes inside a `with` use `count` >= 1 threads; streams with a number of their own
    keep it.

        with gpurnn.threads(1):
            y, state = layer(x)

    Raises ValueError below 1, TypeError for anything but an integer.
    """
    return cpu.Threads(count)
