"""Lab 8's seams: the live engine under a sampler of the student's, and what ``minillm bench guided`` recorded."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minilab.comparar.archivos import MEASURED, read
from minilab.comparar.tarea import Unavailable
from minilab.modelo import LabModel
from minilab.vistas.cifras import cifra, porcentaje
from minilab.vistas.vista import Tabla
from minillm_serve import LLM, SamplingParams
from minillm_serve.guided.automaton.vocab import vocab_of
from minillm_serve.seams import SAMPLE, Seams

RECORDED = MEASURED / "mascaras.json"
NAMES = {
    "minillm": "minillm, en cualquier orden",
    "minillm-ordered": "minillm, en el orden del esquema",
    "llguidance": "llguidance",
    "xgrammar": "xgrammar",
    "outlines": "outlines-core",
}
HEAD = (
    "motor",
    "esquemas bien resueltos",
    "documentos válidos que prohíbe",
    "inválidos que permite",
    "esquemas que rechaza",
    "sin tiempo o sin memoria",
    "máscara p50 (µs)",
    "máscara p99 (µs)",
    "compilar p50 (ms)",
)


@dataclass(frozen=True)
class Escrito:
    """What one run wrote. ids: its tokens, without the end token. fin: ``stop``, or ``length`` where it was cut."""

    texto: str
    fin: str
    ids: tuple[int, ...]


class MotorAbierto:
    """The engine with the choice of each token left open: real logits go in, the id that you choose comes out.

    textos: text of each token, None for one that has none of its own (special, or half a character). fin: end token.
    """

    def __init__(self, modelo: LabModel):
        self._choose: Callable[[Tensor], int] | None = None
        self._llm = LLM(modelo.carpeta, seams=Seams({SAMPLE: self._sample}))
        vocab = vocab_of(self._llm.tokenizer)
        self.fin = max(vocab.eos_token_ids)
        self.textos = [None if data is None else _text(data) for data in vocab.token_bytes]
        self.bytes = vocab.token_bytes

    def escribe(self, pregunta: str, elige: Callable[[Tensor], int], max_tokens: int = 64) -> Escrito:
        """The answer to one question; ``elige(logits [vocab]) -> id`` is called once a token, before any mask."""
        self._choose = elige
        params = SamplingParams(max_tokens=max_tokens, temperature=0.0)
        answer = self._llm.chat([{"role": "user", "content": pregunta}], params)[0].outputs[0]
        ids = tuple(token for token in answer.token_ids if token != self.fin)
        return Escrito(answer.text, str(answer.finish_reason), ids)

    def trocea(self, texto: str) -> list[int]:
        """The tokens that the tokenizer makes of a text."""
        return list(self._llm.tokenizer.encode(texto))

    def _sample(self, logits: Tensor, settings: Any) -> Tensor:
        return torch.tensor([int(self._choose(row)) for row in logits.clone()])


@dataclass(frozen=True)
class MascarasGrabadas:
    """The recorded comparison of mask engines as a table with its origin, or the sentence that says what is missing."""

    titulo: str
    origen: str
    tabla: Tabla | None = None

    def __repr__(self) -> str:
        return "\n".join([self.titulo, *([str(self.tabla)] if self.tabla else []), self.origen])

    def _repr_html_(self) -> str:
        table = self.tabla.html(self.titulo) if self.tabla else f"<p>{html.escape(self.titulo)}</p>"
        return f"{table}<p>{html.escape(self.origen)}</p>"


def mascaras_grabadas() -> MascarasGrabadas:
    """What ``minillm bench guided --json labs/medidas/mascaras.json`` wrote: mask engines over the same schemas."""
    title = "Motores de máscaras, con los mismos esquemas y el mismo vocabulario (grabado)"
    try:
        document = read(RECORDED)
    except Unavailable as error:
        return MascarasGrabadas(title, f"No medido: {error}.")
    rows = tuple(_row(name, document) for name in document["engines"])
    place = document["environment"]
    origin = (
        f"Grabado: {RECORDED.as_posix()}, {document['date'][:10]}, {place['cpu']} (un núcleo, "
        f"{document['limits']['seconds']:g} s y {document['limits']['memory_gib']:g} GiB por esquema); "
        f"{document['data']['schemas']} esquemas de {document['data']['file']}; orden: {document['command']}."
    )
    return MascarasGrabadas(title, origin, Tabla(HEAD, rows))


def _row(name: str, document: dict[str, Any]) -> tuple[str, ...]:
    found, times = document["engines"][name], document["engines"][name]["times"]
    version = document["info"][name].get("version", "")
    speeds = [times.get("mask_p50"), times.get("mask_p99"), times.get("compile_p50")]
    units = (1, 1, 1000)
    return (
        f"{NAMES.get(name, name)} {version}".strip(),
        f"{found['right']} de {found['with_tests']} ({porcentaje(found['right_share'] or 0, 1)})",
        f"{found['valid_refused']} de {found['valid']}",
        f"{found['invalid_accepted']} de {found['invalid']}",
        str(found["outcomes"].get("refused", 0)),
        str(len(found["failures"])),
        *("–" if value is None else cifra(value / unit, 1) for value, unit in zip(speeds, units, strict=True)),
    )


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
