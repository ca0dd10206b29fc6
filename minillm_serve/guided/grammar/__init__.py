"""Normalised nodes, regular expressions, EBNF and tags -> one recursive transition network."""
