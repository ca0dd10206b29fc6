"""Every comparison by its name: its columns, who is measured and how."""

from __future__ import annotations

from collections.abc import Callable

from minilab.comparar import archivos, obreros, servidores
from minilab.comparar.servidores import by_url, here, our_server, vllm_server
from minilab.comparar.tarea import Comparison, Part, Row, Task, Unavailable

TGI_STATE = (
    "TGI está en modo de mantenimiento desde el 11 de diciembre de 2025 y archivado desde marzo de 2026: "
    "se estudia su diseño, no se recomienda para empezar."
)
EAGER = (
    "vLLM corre aquí en la CPU, sin compilar (--enforce-eager): en una GPU sus cifras son otras (comparación «gpu»)."
)


def _only_by_url(task: Task) -> list[Row]:
    raise Unavailable("no hay MINILAB_TGI_URL, la dirección de un servidor")


def _throughput(title: str, requests: int) -> Comparison:
    def measured(kind: str) -> Callable[[Task], list[Row]]:
        return lambda task: obreros.throughput(kind, requests, task)

    over_http = servidores.one_and_all(requests)
    return Comparison(
        title,
        ("peticiones", "tok_s"),
        (
            Part("transformers", measured("transformers")),
            Part("minillm", measured("minillm")),
            Part("vLLM", measured("vllm"), by_url("vLLM", over_http)),
            Part("llama.cpp", measured("llamacpp")),
            Part("TGI", _only_by_url, by_url("TGI", over_http)),
        ),
        notes=(EAGER, TGI_STATE),
    )


COMPARISONS: dict[str, Comparison] = {
    "con_y_sin_cache": Comparison(
        "transformers con la caché KV y sin ella",
        ("nuevos", "segundos", "tok_s"),
        (Part("transformers", obreros.without_and_with_cache),),
    ),
    "una_contra_cincuenta": _throughput("Las mismas peticiones, de una en una y todas a la vez", 50),
    "una_contra_cien": _throughput("Cien peticiones: de una en una y todas a la vez", 100),
    "barrido_max_num_seqs": Comparison(
        "El mismo trabajo con más plazas en el lote",
        ("plazas", "peticiones", "tok_s"),
        (
            Part("transformers", lambda task: obreros.sweep("transformers", task)),
            Part("minillm", lambda task: obreros.sweep("minillm", task)),
            Part("vLLM", lambda task: obreros.sweep("vllm", task)),
            Part("llama.cpp", lambda task: obreros.sweep("llamacpp", task)),
        ),
        notes=(EAGER,),
    ),
    "cache_de_prefijos": Comparison(
        "Peticiones que empiezan igual, una tras otra",
        ("peticiones", "tok_s", "ttft_p50", "ttft_p95"),
        (
            Part("minillm", lambda task: obreros.prefixes("minillm", task)),
            Part("vLLM", lambda task: obreros.prefixes("vllm", task)),
            Part("llama.cpp", lambda task: obreros.prefixes("llamacpp", task)),
        ),
    ),
    "uso_de_cache_kv": Comparison(
        "Lo que dice /metrics mientras se atiende a muchos clientes",
        ("max_uso_pct", "max_en_curso", "max_en_espera"),
        (
            Part("minillm", here("minillm", our_server, servidores.cache_use)),
            Part("vLLM", here("vLLM", vllm_server, servidores.cache_use), by_url("vLLM", servidores.cache_use)),
        ),
    ),
    "prefill_troceado": Comparison(
        "Llega un prompt largo mientras otras peticiones decodifican",
        ("itl_p50", "itl_max", "ttft_largo"),
        (
            Part("minillm", servidores.budgets("minillm", our_server), slow=True),
            Part("vLLM", servidores.budgets("vLLM", vllm_server)),
        ),
    ),
    "especulativa": Comparison(
        "Respuestas que copian su prompt, con borradores y sin ellos",
        ("peticiones", "tok_s"),
        (
            Part("transformers", obreros.transformers_drafting),
            Part("minillm", lambda task: obreros.drafting("minillm", task)),
            Part("vLLM", lambda task: obreros.drafting("vllm", task)),
        ),
    ),
    "especulativa_gpu": Comparison(
        "Borradores en una H100, con la aceptación fijada",
        ("tok_s", "tokens_por_paso"),
        (),
        archivos.gpu_speculation_rows,
    ),
    "json_garantizado": Comparison(
        "JSON pedido con palabras y JSON pedido con un esquema",
        ("peticiones", "validas_pct", "tok_s"),
        (
            Part("minillm", here("minillm", our_server, servidores.guaranteed)),
            Part("vLLM", here("vLLM", vllm_server, servidores.guaranteed), by_url("vLLM", servidores.guaranteed)),
        ),
    ),
    "guided_json": Comparison(
        "El campo retirado `guided_json` y el que lo sustituye",
        ("http", "valido", "respuesta"),
        (
            Part("minillm", here("minillm", our_server, servidores.old_field)),
            Part("vLLM", here("vLLM", vllm_server, servidores.old_field), by_url("vLLM", servidores.old_field)),
        ),
    ),
    "cincuenta_clientes": Comparison(
        "Muchos clientes de OpenAI a la vez, con streaming",
        ("peticiones", "tok_s", "ttft_p50", "ttft_p95"),
        (
            Part("minillm", here("minillm", our_server, servidores.clients)),
            Part("vLLM", here("vLLM", vllm_server, servidores.clients), by_url("vLLM", servidores.clients)),
            Part("TGI", _only_by_url, by_url("TGI", servidores.clients)),
        ),
        lambda: archivos.trace_rows("vllm-0.32-cpu", "CPU") + archivos.trace_rows("vllm-0.23-h100", "H100"),
        notes=(TGI_STATE,),
    ),
    "gpu": Comparison("El mismo trabajo en GPU de verdad", ("peticiones", "tok_s"), (), archivos.gpu_rows),
}  # fmt: skip
