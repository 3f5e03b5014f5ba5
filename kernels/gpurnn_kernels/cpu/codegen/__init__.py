"""How a CPU kernel is written, compiled and kept. Nothing here knows a recurrent layer."""
