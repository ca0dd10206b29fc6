"""Pure figures: a frozen state in, a :class:`Vista` out. No torch, no widget, no clock, no chance."""

from minilab.vistas.bloques import EstadoBloques, bloques_a_mano, bloques_de_traza, dibuja_bloques
from minilab.vistas.borradores import EstadoBorradores, PasoBorrador, borradores_de, dibuja_borradores
from minilab.vistas.equipo import FormaModelo, Techo, fecha_gpus, gpu, gpus, modelo, modelos
from minilab.vistas.gantt import dibuja_gantt
from minilab.vistas.latencias import EstadoLatencias, dibuja_latencias
from minilab.vistas.linea import Barra, LineaTiempo, Peticion, linea_de_filas, linea_de_traza
from minilab.vistas.mascara import (
    Candidato,
    EstadoMascara,
    dibuja_mascara,
    mascara_de_gramatica,
    recorre_mascara,
)
from minilab.vistas.qkt import EstadoQKT, dibuja_qkt
from minilab.vistas.roofline import EstadoRoofline, Punto, dibuja_roofline
from minilab.vistas.vista import Tabla, Vista
from minilab.vistas.vram import EstadoVRAM, dibuja_vram

__all__ = [
    "Barra",
    "Candidato",
    "EstadoBloques",
    "EstadoBorradores",
    "EstadoLatencias",
    "EstadoMascara",
    "EstadoQKT",
    "EstadoRoofline",
    "EstadoVRAM",
    "FormaModelo",
    "LineaTiempo",
    "PasoBorrador",
    "Peticion",
    "Punto",
    "Tabla",
    "Techo",
    "Vista",
    "bloques_a_mano",
    "bloques_de_traza",
    "borradores_de",
    "dibuja_bloques",
    "dibuja_borradores",
    "dibuja_gantt",
    "dibuja_latencias",
    "dibuja_mascara",
    "dibuja_qkt",
    "dibuja_roofline",
    "dibuja_vram",
    "fecha_gpus",
    "gpu",
    "gpus",
    "linea_de_filas",
    "linea_de_traza",
    "mascara_de_gramatica",
    "modelo",
    "modelos",
    "recorre_mascara",
]
