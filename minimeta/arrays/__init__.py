"""The array-module switch, and the threads and memory of the host."""
