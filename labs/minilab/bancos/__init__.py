"""What one lab stands on: its seams into the real engine, its loads, and what was recorded for it."""
