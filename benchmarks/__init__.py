"""Named layers, the timing protocol, and the comparison of pyconv with its peers."""
