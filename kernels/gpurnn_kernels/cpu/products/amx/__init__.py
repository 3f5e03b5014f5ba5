"""Products of the backward pass on AMX, the matrix unit of recent Xeons.

AMX multiplies bfloat16. Three of them hold a float32, and six of their products make one of float32: 2.5 times as fast as
multiply-adds of vectors, and more accurate, since fewer sums are rounded. The forward pass does not use AMX: its bits must not
depend on the batch, and a few rows would take longer than they do on vectors.
"""
