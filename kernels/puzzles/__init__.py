"""Kernel puzzles, from vector add to paged attention: see kernels/README.md."""
