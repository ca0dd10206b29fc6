"""What intake refuses as a whole; a single bad entry is a ``Received`` with a ``problem`` instead."""

from __future__ import annotations

from minilab_grading.curso import CycleError


class IntakeError(CycleError):
    """A roster, folder or zip that cannot be used at all; says why and what to do, in Spanish."""
