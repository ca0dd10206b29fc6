"""Faster versions of the ops for x86 and ARM CPUs, with nothing to compile."""
