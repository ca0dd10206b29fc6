"""The course folder: its settings, every attempt, deadlines and the parallel pass over new attempts."""


class CycleError(RuntimeError):
    """A step that could not be done; says which, for whom and what to do, in Spanish."""
