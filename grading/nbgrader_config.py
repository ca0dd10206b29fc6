"""nbgrader's configuration for this course. ``c`` and ``get_config`` are provided by traitlets.

The course folder is ``MINILAB_CURSO``, or ``trabajo/`` beside this file.
"""

import os
from pathlib import Path

from nbconvert.preprocessors import ClearMetadataPreprocessor, CSSHTMLHeaderPreprocessor
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    ClearOutput,
    DeduplicateIds,
    IgnorePattern,
    LimitOutput,
    OverwriteKernelspec,
    SaveAutoGrades,
)

from minilab.plantilla import CODE_STUB, TEXT_STUB
from minilab_grading.preprocesadores import EjecutarTolerante, InyectaNotas, NotasParaLeer, RestauraCeldas

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "serving-llm"
c.CourseDirectory.root = os.environ.get("MINILAB_CURSO", str(Path(__file__).resolve().parent / "trabajo"))

# The stubs are frozen with the first release: see minilab.plantilla.
c.ClearSolutions.code_stub = CODE_STUB
c.ClearSolutions.text_stub = TEXT_STUB

# Execute.timeout is the one nbgrader obeys; the default of 30 s is shorter than loading a model.
c.Execute.timeout = 120
c.Execute.startup_timeout = 60

c.RestauraCeldas.add_missing_cells = True
c.RestauraCeldas.missing_cell_notification = "Faltaba la celda {cell_id}; se ha restaurado.\n\n"

# Any text on stderr would score 0: InyectaNotas replaces the outputs of check cells, and warnings are dropped anyway.
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = r"(?i)warning|aviso|NNPACK|TCP without encryption"

c.Autograde.sanitize_preprocessors = [
    ClearOutput,
    DeduplicateIds,
    OverwriteKernelspec,
    RestauraCeldas,
    CheckCellMetadata,
]
c.Autograde.autograde_preprocessors = [
    EjecutarTolerante,
    IgnorePattern,
    ClearMetadataPreprocessor,
    LimitOutput,
    InyectaNotas,
    SaveAutoGrades,
    AssignLatePenalties,
    CheckCellMetadata,
]

c.GenerateFeedback.preprocessors = [NotasParaLeer, CSSHTMLHeaderPreprocessor]
c.HTMLExporter.template_name = "retro_es"
c.HTMLExporter.extra_template_basedirs = [str(Path(__file__).resolve().parent / "plantillas")]
