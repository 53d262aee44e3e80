"""Handwritten digits read by a small convolutional network, with pyconv and NumPy only."""
