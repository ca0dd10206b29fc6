"""The ops for CPUs: ``*_cpp`` in C++ compiled on first use (x86 and ARM), ``*_torch`` with nothing to compile."""
