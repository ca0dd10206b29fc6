"""Submissions in and feedback out: folders, zips, and the names that Moodle and Canvas give to files."""

from minilab_grading.entregas.alumnos import Roster, Student
from minilab_grading.entregas.devolver import feedback_zip, release_zip
from minilab_grading.entregas.errores import IntakeError
from minilab_grading.entregas.recibir import Received, receive

__all__ = ["IntakeError", "Received", "Roster", "Student", "feedback_zip", "receive", "release_zip"]
