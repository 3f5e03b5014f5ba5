"""How implementations are run side by side and timed."""
