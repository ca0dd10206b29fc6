"""Interactive figures of the labs: ``ver_*`` gives a :class:`Panel` to be the last line of a cell.

The figures are the pure renderers of :mod:`minilab.vistas`; each ``ver_*`` chooses the states and the controls.
"""

from minilab.widgets.panel import Panel
from minilab.widgets.planes import ver_latencias, ver_roofline, ver_vram
from minilab.widgets.trazas import ver_bloques, ver_borradores, ver_gantt, ver_mascara, ver_qkt

__all__ = [
    "Panel",
    "ver_bloques",
    "ver_borradores",
    "ver_gantt",
    "ver_latencias",
    "ver_mascara",
    "ver_qkt",
    "ver_roofline",
    "ver_vram",
]
