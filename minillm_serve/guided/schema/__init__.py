"""JSON Schema as written -> normalised nodes: what the schema means."""
