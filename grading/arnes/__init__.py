"""The harness: student source runs in an isolated worker, plain values come back, the verdict is reached here."""
