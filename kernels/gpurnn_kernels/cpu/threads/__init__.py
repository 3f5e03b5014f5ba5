"""Threads that run a command together: how many may come, how they share its pieces, and how the caller never waits for
one."""
