"""The network machine in C++: the same answers as machine.py, some hundred times faster."""
