"""Calls made ready: records filled in, memory found, commands given to the threads."""
