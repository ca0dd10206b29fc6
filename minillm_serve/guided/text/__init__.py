"""Finite automata over bytes and code points: numbers, strings, regular expressions, formats."""
