"""Records of marks: seeds and signatures from the course's secret, ``nota.json``, its verification and its repetition.

``verificar`` and ``recalificar`` are imported by their own names: they need nbgrader's gradebook and the harness.
"""

from minilab_grading.registro.claves import SECRET_FILE, make_secret, seed_id, seed_of
from minilab_grading.registro.nota import (
    FILE,
    SCHEMA,
    Graded,
    Record,
    is_signed,
    make_record,
    points_of,
    read_record,
    sign,
    to_bytes,
    write_record,
)
from minilab_grading.registro.version import cases_version, harness, harness_version

__all__ = [
    "FILE",
    "SCHEMA",
    "SECRET_FILE",
    "Graded",
    "Record",
    "cases_version",
    "harness",
    "harness_version",
    "is_signed",
    "make_record",
    "make_secret",
    "points_of",
    "read_record",
    "seed_id",
    "seed_of",
    "sign",
    "to_bytes",
    "write_record",
]
