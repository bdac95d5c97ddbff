"""The same work on a cluster of machines, by Ray."""
