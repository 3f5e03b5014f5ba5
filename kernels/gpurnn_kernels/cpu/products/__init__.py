"""The matrix product: register tiles, and weights in the order in which the tiles read them."""
