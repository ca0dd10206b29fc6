"""``python -m minilab_grading.medidores.grabar NOMBRE``: record a trace of a real vLLM, with the pipeline beside it.

Without ``--url`` it starts the vLLM of this machine on its CPU; with it, it asks one that is running, on any device.
Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from minilab_grading.medidores.banco import MeterError
from minilab_grading.medidores.traza import CLIENTS, FOLDER, Trace, collect, record_trace, throughput, write_trace
from minilab_grading.medidores.vllm_vivo import CONTEXT, STARTUP_S, server_arguments, server_command, vllm_command
from minillm_serve.bench.server_process import ServerError, ServerProcess
from minillm_serve.config import ConfigError
from minillm_serve.model.store import resolve_model


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Graba una traza: lo que un vLLM real responde a cincuenta clientes.")
    parser.add_argument("nombre", help="nombre de la traza, por ejemplo vllm-0.32-cpu")
    parser.add_argument("--modelo", default="smollm2-135m", help="nombre conocido o carpeta (%(default)s)")
    parser.add_argument("--url", help="un vLLM en marcha, hasta /v1; sin ella se arranca el de este equipo, en la CPU")
    parser.add_argument("--servido", help="cómo llama ese servidor al modelo (por defecto, el nombre de la carpeta)")
    parser.add_argument("--orden", default="", help="la orden con que se arrancó, para el registro")
    parser.add_argument("--dispositivo", choices=("cpu", "cuda"), default="cpu", help="de la pipeline (%(default)s)")
    parser.add_argument("--dtype", default="float32", help="de la pipeline, el mismo que el del servidor (%(default)s)")
    parser.add_argument("--destino", type=Path, default=FOLDER, help="carpeta donde se escribe")
    return parser


def main() -> int:
    options = arguments().parse_args()
    try:
        folder = resolve_model(options.modelo)
        path = options.destino / f"{options.nombre}.json"
        if options.url is None:
            if options.dispositivo != "cpu":
                raise MeterError("para otro dispositivo arranca tú el servidor y da su dirección con --url")
            trace = _on_this_cpu(path, folder, options.dtype)
        else:
            trace = record_trace(
                path, options.url, options.servido or folder.name, folder,
                order=options.orden.split(), device=options.dispositivo, dtype=options.dtype,
            )  # fmt: skip
    except (MeterError, ServerError, ConfigError) as error:
        print(f"grabar: {error}", file=sys.stderr)
        return 2
    rate = throughput(trace.answers)
    padded = trace.data["pipeline"]["en_lote"]["tok_s"]
    print(f"vLLM {rate:.1f} tok/s; pipeline una a una {trace.pipeline_tok_s:.1f}, en lote {padded:.1f} tok/s")
    print(f"razón {rate / trace.pipeline_tok_s:.1f}×; sha256 {trace.sha256}")
    return 0


def _on_this_cpu(path: Path, folder: Path, dtype: str) -> Trace:
    """vLLM first; the pipeline when it has ended."""
    order = ["vllm", "serve", folder.name, "--max-num-seqs", str(CLIENTS), "--max-model-len", str(CONTEXT)]
    flags = server_arguments([*order, "--dtype", dtype], folder, "cpu")
    with tempfile.TemporaryDirectory(prefix="medidor-") as scratch:
        log = Path(scratch) / "servidor.log"
        with ServerProcess(flags, log, 0, server_command(vllm_command()), STARTUP_S) as server:
            collected = collect(server.base_url, folder.name, folder)
    return write_trace(path, collected, folder, ["vllm", "serve", folder.name, *flags[1:]], dtype=dtype)


if __name__ == "__main__":
    sys.exit(main())
