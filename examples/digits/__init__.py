"""Handwritten digits read by a small convolutional network, with pyconv and NumPy only.

The images come from E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI
Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0.
"""
