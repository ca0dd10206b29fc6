"""Measured files of the clone: ``labs/medidas`` (read and written here), ``reports`` and ``grading/trazas`` (read)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from minilab.comparar.tabla import RECORDED, Fila, Origen
from minilab.comparar.tarea import Row, Unavailable, percentile
from minillm_serve.bench.contention import BUSY_LIMIT
from minillm_serve.model.store import DEFAULT_MODEL

MEASURED = Path("labs") / "medidas"
SCHEMA = "minilab-medida/1"


def checkout() -> Path | None:
    """The root of the course's clone: where this package lies in it, else the current folder or a parent."""
    here = Path.cwd().resolve()
    for folder in (Path(__file__).resolve().parents[3], here, *here.parents):
        if (folder / "labs").is_dir() and (folder / "reports").is_dir():
            return folder
    return None


def read(relative: str | Path) -> dict[str, Any]:
    """A JSON file of the clone. Raises :class:`Unavailable` with what to do."""
    root = checkout()
    if root is None:
        raise Unavailable("no encuentro el repositorio del curso (con labs/ y reports/): trabaja dentro de su copia")
    try:
        return json.loads((root / relative).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Unavailable(f"falta {Path(relative).as_posix()}: está en el repositorio del curso") from None
    except ValueError as error:
        raise Unavailable(f"{Path(relative).as_posix()} está dañado ({error}): recupéralo con git") from error


def measured_path(name: str) -> Path:
    return MEASURED / f"{name}.json"


def recorded_rows(name: str, systems: Sequence[str]) -> list[Fila]:
    """The rows of these systems in ``labs/medidas/NAME.json``. Raises :class:`Unavailable`."""
    path = measured_path(name)
    document = read(path)
    rows = [r for r in document["medida"]["filas"] if r["sistema"] in systems]
    origin = _origin(path, document)
    return [Fila(r["sistema"], r["caso"], r["valores"], origin, r["detalle"]) for r in rows]


def _origin(path: Path, document: dict[str, Any]) -> Origen:
    note = f"{path.as_posix()}: {document['fecha']}, {_machine(document['entorno'])}; orden: {document['orden']}."
    if document["medida"].get("rapido"):
        note += " Grabación provisional, con pocas peticiones."
    if (share := document["medida"].get("otros_cpu") or 0) > BUSY_LIMIT:
        note += f" Otros programas se llevaban el {100 * share:.0f} % de la CPU."
    return Origen(RECORDED, f"grabado: {path.as_posix()}, {document['fecha']}", note)


def _machine(environment: dict[str, Any]) -> str:
    return f"{environment['cpu']}, {environment['cores']} núcleos"


def write(root: Path, name: str, rows: Sequence[Row], quick: bool, order: str, busy: float | None) -> Path:
    """Write the measured file. busy: the largest share of the CPU that other programs took, None if unknown."""
    from minillm_serve.bench.environment import available_cores, describe_environment
    from minillm_serve.bench.session import write_json

    environment = describe_environment(available_cores(), "véase cada fila")
    measure = {"nombre": name, "rapido": quick, "otros_cpu": busy, "filas": list(rows)}
    folder = root / MEASURED
    folder.mkdir(parents=True, exist_ok=True)
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    document = {"esquema": SCHEMA, "medida": measure, "entorno": environment, "orden": order, "fecha": day}
    write_json(folder / f"{name}.json", document)
    return folder / f"{name}.json"


def trace_rows(name: str, where: str) -> list[Fila]:
    """What a recorded vLLM answered to fifty clients, and the pipeline beside it."""
    path = f"grading/trazas/{name}.json"
    trace = read(path)
    place, answers = trace["entorno"], trace["respuestas"]
    device = place.get("gpu") or f"{place['cpu']}, {place['nucleos']} núcleos"
    note = f"{path}: {trace['fecha']}, {device}; orden: {' '.join(trace['orden'])}."
    first = [a["trozos"][0][0] for a in answers]
    values = {
        "peticiones": len(answers),
        "tok_s": sum(a["uso"] for a in answers) / max(a["fin"] for a in answers),
        "ttft_p50": percentile(first, 50),
        "ttft_p95": percentile(first, 95),
    }
    origin = Origen(RECORDED, f"grabado: {path}, {trace['fecha']}", note)
    single, padded = trace["pipeline"]["una_a_una"], trace["pipeline"]["en_lote"]
    server, library = (f"{kind} {place[kind.lower()]}, {trace['dtype']}" for kind in ("vLLM", "transformers"))
    return [
        Fila("vLLM", f"50 clientes, {where}", values, origin, server),
        Fila("transformers", f"una a una, {where}", {"tok_s": single["tok_s"]}, origin, library),
        Fila("transformers", f"lote con relleno, {where}", {"tok_s": padded["tok_s"]}, origin, library),
    ]


GPU_CELLS = {"home50": "50 peticiones", "mix256": "256 peticiones mezcladas", "single": "una petición"}
BACKENDS = {"minillm": "minillm", "vllm": "vLLM", "transformers": "transformers"}


def gpu_rows() -> list[Fila]:
    """Throughput on real GPUs: ``reports/gpu-h100.json`` and ``gpu-h200.json``."""
    rows = []
    for gpu in ("h100", "h200"):
        report, origin = _gpu_report(f"reports/gpu-{gpu}.json")
        for r in report["results"]:
            case = f"{gpu.upper()}, {r['shape']}, {GPU_CELLS[r['cell']]}"
            case += ", una a una" if r["backend"] == "transformers" else ""
            rows.append(Fila(BACKENDS[r["backend"]], case, {"peticiones": r["prompts"], "tok_s": r["tok_s"]}, origin))
    return rows


def gpu_speculation_rows() -> list[Fila]:
    """Speculation on an H100: drafts that are accepted with a set probability."""
    report, origin = _gpu_report("reports/gpu-h100-speculation.json")
    rows = []
    for r in report["speculation"]:
        if not rows:
            rows.append(Fila("minillm", "sin borrador", {"tok_s": r["plain_tok_s"]}, origin))
        accepted = f"{r['acceptance']:g}".replace(".", ",")
        values = {"tok_s": r["tok_s"], "tokens_por_paso": r["tokens_per_step"]}
        rows.append(Fila("minillm", f"k = {r['drafts']}, aceptación {accepted}", values, origin))
    return rows


def _gpu_report(path: str) -> tuple[dict[str, Any], Origen]:
    report = read(path)
    versions = [f"{name} {v['version']}" for name, v in report["versions"].items() if isinstance(v, dict)]
    day, about = report["date"][:10], ", ".join([report["device"], *versions, "bf16, pesos aleatorios"])
    note = f"{path}: {day}, {about}; orden: minillm bench gpu."
    return report, Origen(RECORDED, f"grabado: {path}, {day}", note)


def order_of(name: str, quick: bool, passes: int, model: str = DEFAULT_MODEL) -> str:
    chosen = [] if model == DEFAULT_MODEL else [f"--modelo {Path(model).name}"]  # no path of a machine
    flags = [f"--veces {passes}", *chosen, *(["--rapido"] if quick else [])]
    return " ".join(["python -m minilab.comparar graba", name, *flags])
