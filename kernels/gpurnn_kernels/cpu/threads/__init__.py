"""Threads that run a command together: who may come, how they share its pieces, and how the caller never waits for one."""
