"""A network run against a vocabulary: where a text stands, and which tokens may come next."""
