"""Loops over a sequence: forward, backward, and the products for the gradients of the weights."""
