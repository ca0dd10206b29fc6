"""nbgrader's configuration for this course. ``c`` and ``get_config`` are provided by traitlets.

The course folder is ``MINILAB_CURSO``, or the folder where nbgrader was started. Each course has its own
``nbgrader_config.py`` that loads this one.
"""

import os
from pathlib import Path

from nbconvert.preprocessors import ClearMetadataPreprocessor
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
from minilab_grading.curso.carpeta import COURSE_ID
from minilab_grading.curso.plazos import PenalizaRetraso
from minilab_grading.preprocesadores import (
    EjecutarTolerante,
    InyectaNotas,
    LimpiaMarcado,
    NotasParaLeer,
    PaginaDeRetro,
    ReconstruyeEntrega,
    RestauraCeldas,
)
from minilab_grading.retroalimentacion import NotaEnLaPagina

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = COURSE_ID
c.CourseDirectory.root = os.environ.get("MINILAB_CURSO", os.getcwd())

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
    ReconstruyeEntrega,
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

c.AssignLatePenalties.plugin_class = PenalizaRetraso

# formgrader uses HTMLExporter with a template of its own, in the browser of who grades.
c.HTMLExporter.preprocessors = [LimpiaMarcado]

c.GenerateFeedback.preprocessors = [NotasParaLeer, NotaEnLaPagina]
c.GenerateFeedback.exporter_class = PaginaDeRetro
c.PaginaDeRetro.preprocessors = []
c.PaginaDeRetro.template_name = "retro_es"
c.PaginaDeRetro.extra_template_basedirs = [str(Path(__file__).resolve().parent / "plantillas")]
