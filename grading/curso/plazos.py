"""Late work: how much it loses, and the nbgrader plugin that says so to the gradebook."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.plugins import LateSubmissionPlugin

from minilab_grading.curso.carpeta import AssignmentSettings, read_settings

DAY_S = 86400


def seconds_late(when: datetime, settings: AssignmentSettings) -> float:
    return max(0.0, (when - settings.due).total_seconds()) if settings.due else 0.0


def penalty(score: float, seconds_late: float, settings: AssignmentSettings) -> float:
    """Points taken from ``score``: none within the grace; then a percentage for each started day since the deadline."""
    if seconds_late <= settings.grace:
        return 0.0
    percent = min(math.ceil(seconds_late / DAY_S) * settings.percent_per_day, settings.percent_maximum)
    return round(score * percent / 100, 2)


class PenalizaRetraso(LateSubmissionPlugin):
    """``c.AssignLatePenalties.plugin_class``: the policy of ``curso.toml``, beside the gradebook."""

    def late_submission_penalty(self, student_id: str, score: float, total_seconds_late: float) -> float:
        root = Path(self.parent.db_url.removeprefix("sqlite:///")).parent
        return penalty(score, total_seconds_late, read_settings(root).of(self.parent.assignment_id))


def set_due_date(root: Path, database: str, course_id: str, assignment: str) -> None:
    """Write the deadline of ``curso.toml`` (UTC, as nbgrader keeps it) into the gradebook."""
    due = read_settings(root).of(assignment).due
    with Gradebook(database, course_id) as gradebook:
        gradebook.update_or_create_assignment(assignment, duedate=due and due.replace(tzinfo=None))


def refresh_penalties(root: Path, database: str, course_id: str, assignment: str) -> None:
    """Set every penalty again: what a person marked since the autograde pass counts for it too."""
    settings = read_settings(root).of(assignment)
    with Gradebook(database, course_id) as gradebook:
        for submission in gradebook.assignment_submissions(assignment):
            late = submission.total_seconds_late
            for notebook in submission.notebooks:
                notebook.late_submission_penalty = penalty(notebook.score, late, settings) if late > 0 else None
        gradebook.db.commit()
