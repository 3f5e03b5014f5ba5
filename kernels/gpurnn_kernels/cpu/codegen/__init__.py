"""This room writes, compiles and caches CPU kernels. Nothing here knows a recurrent layer."""
