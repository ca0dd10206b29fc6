"""The course's grader: nbgrader configuration, the out-of-process harness, the hidden cases and the grading cycle."""
