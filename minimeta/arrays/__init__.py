"""The array-module switch, kernels, and the threads and memory of the host."""
