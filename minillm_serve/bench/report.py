"""``reports/demo.html`` from the demo's result and the engine's trace: pure functions, everything inline."""

from __future__ import annotations

import json
from typing import Any

from minillm_serve.bench import gantt, page, svg
from minillm_serve.bench.plots import Throughput, throughput_bars, ttft_distribution
from minillm_serve.bench.result import HOMEWORK_RATIO, RATIO_TARGET, disturbed
from minillm_serve.bench.summary import others_cpu

Result = dict[str, Any]

DISTURBED = (
    "Other programs were busy during some of the measurements: the engines did not have the same CPU, so the ratios "
    "of this page mean little. The correctness checks are not affected."
)


def build_report(result: Result, trace: gantt.Trace, guided_trace: gantt.Trace) -> str:
    """The page. ``result`` as in ``demo.json``; the traces hold the median and the guided run alone."""
    body = [
        _summary(result),
        _throughput(result),
        _latency(result),
        _scheduler(trace, guided_trace),
        _guided(result),
        _equality(result),
        _answers(result),
        _method(result),
    ]
    return page.document(f"minillm demo: one engine, {result['settings']['prompts']} clients", body)


def _summary(result: Result) -> str:
    count = result["settings"]["prompts"]
    json_ok = result["json_valid"] == result["json_total"]
    greedy_ok = result["greedy_equal"] == result["greedy_total"]
    cards = [
        page.card(f"{result['minillm_tok_s']:.0f} tok/s", f"minillm, {count} clients at once"),
        page.card(
            f"{result['ratio']:.1f}×",
            f"the transformers pipeline one by one (target {RATIO_TARGET:g}×, homework {HOMEWORK_RATIO:g}×)",
            _verdict(result["ratio"] >= RATIO_TARGET),
        ),
        page.card(f"{result['ratio_batch']:.2f}×", "the same pipeline with all prompts in one padded batch"),
        page.card(
            f"{result['json_valid']} of {result['json_total']}",
            "guided JSON answers valid",
            _verdict(json_ok),
        ),
        page.card(
            f"{result['greedy_equal']} of {result['greedy_total']}",
            "greedy answers equal to transformers",
            _verdict(greedy_ok),
        ),
    ]
    return (
        "<header><h1>One engine, "
        f"{count} clients at once</h1>"
        + page.paragraph(
            f"A server written in this repository answered {count} different chats at the same moment on a CPU. "
            f"Weights: {result['weights']['name']}. Measured on {result['created']}.",
        )
        + page.paragraph("The engine is the subject here, not the wit of a 135-million-parameter model.", "muted")
        + (page.paragraph(DISTURBED, "bad") if disturbed(result) else "")
        + f'<div class="cards">{"".join(cards)}</div></header>'
    )


def _verdict(good: bool) -> str:
    return "good" if good else "bad"


def _throughput(result: Result) -> str:
    runs = [run["tok_s"] for run in result["minillm"]["runs"]]
    singles = [m["tok_s"] for m in result["baseline"]["one_by_one"]]
    batches = [m["tok_s"] for m in result["baseline"]["padded_batch"]]
    settings = result["settings"]

    def bar(label: str, value: float, values: list[float], color: str) -> Throughput:
        return Throughput(label, value, min(values), max(values), color)

    rows = [
        bar("transformers pipeline, one prompt at a time", result["baseline_tok_s"], singles, svg.VERMILLION),
        bar("transformers pipeline, one padded batch", result["baseline_batch_tok_s"], batches, svg.PURPLE),
        bar(f"minillm serve, {settings['prompts']} clients", result["minillm_tok_s"], runs, svg.BLUE),
    ]
    return page.section(
        "throughput",
        "Throughput",
        page.picture(
            throughput_bars(rows),
            f"minillm: median of {len(runs)} runs, tokens over the wall clock from the first send to the last token, "
            f"HTTP server and client included. One at a time: {len(singles)} of the same prompts, spread evenly. "
            f"Padded batch: {len(batches)} run(s) of all {settings['prompts']} prompts. "
            "Whiskers: lowest and highest single measurement.",
        ),
        page.table(
            ("", "tok/s", "lowest", "highest", "minillm ÷ this row"),
            [
                (
                    r.label,
                    f"{r.tok_s:.1f}",
                    f"{r.low:.1f}",
                    f"{r.high:.1f}",
                    f"{result['minillm_tok_s'] / r.tok_s:.2f}×",
                )
                for r in rows
            ],
            numeric=(1, 2, 3, 4),
        ),
    )


def _latency(result: Result) -> str:
    run = result["minillm"]["runs"][result["minillm"]["median_run"]]
    names = {
        "ttft_s": "TTFT: time to first token",
        "itl_s": "ITL: gap between two chunks",
        "tpot_s": "TPOT: time per output token after the first",
        "e2e_s": "E2E: whole answer",
    }
    rows = [
        (label, *(f"{run[key][p] * 1000:.0f}" for p in ("p50", "p95", "p99", "max")))
        for key, label in names.items()
        if run[key]
    ]
    return page.section(
        "latency",
        "Latency",
        page.picture(
            ttft_distribution(result["minillm"]["ttft_s"]),
            "Every request is sent at the same instant: this burst measures throughput, and the first tokens wait "
            "for one another's prompts. Median run.",
        ),
        page.table(("milliseconds, as the client saw them", "p50", "p95", "p99", "max"), rows, numeric=(1, 2, 3, 4)),
    )


def _scheduler(trace: gantt.Trace, guided_trace: gantt.Trace) -> str:
    return page.section(
        "scheduler",
        "The scheduler's Gantt chart",
        page.paragraph(
            "Each row is a request, each bar one step of the engine that computed some of its tokens. There are no "
            "phases: prompts (prefill) and single tokens (decode) share every step's token budget."
        ),
        *_chart(
            trace,
            "Free text, median run",
            "Every answer has the same length, so all clients stay to the end. Drawn from the trace that the engine "
            "wrote; hover a row or a column for its numbers.",
        ),
        *_chart(
            guided_trace,
            "Guided JSON",
            "Answers of different lengths: a request leaves in the step that closes its JSON, and the steps of those "
            "that stay get shorter. In a padded batch everybody waits for the longest.",
        ),
    )


def _chart(trace: gantt.Trace, name: str, caption: str) -> tuple[str, str]:
    title = f"{name}: {len(trace['requests'])} requests in {len(trace['steps'])} steps"
    table = f'<div class="scroll">{gantt.gantt_table(trace)}</div>'
    return (
        page.picture(gantt.render_gantt(trace, title), caption, "wide"),
        page.details(f"{name}: the same data as a table", table),
    )


def _guided(result: Result) -> str:
    answers, schemas = result["guided"]["answers"], result["guided"]["schemas"]
    parts = [
        page.paragraph(
            f"{result['json_valid']} of {result['json_total']} answers are strict JSON (no NaN, no duplicate key, "
            "nothing after the value) and valid by the jsonschema library, which shares no code with the engine. "
            "The shape is guaranteed, the truth of the content is not."
        )
    ]
    invalid = [(a["schema"], a["prompt"], a["text"], str(a["reason"])) for a in answers if not a["valid"]]
    if invalid:
        parts.append(page.table(("schema", "prompt", "invalid answer", "reason"), invalid))
    examples = []
    for name, schema in schemas.items():
        own = [a for a in answers if a["schema"] == name]
        if not own:
            continue
        valid = sum(a["valid"] for a in own)
        examples.append(
            f"<div><h3>{name}: {valid} of {len(own)} valid</h3>"
            + page.paragraph(own[0]["prompt"], "muted")
            + page.code(own[0]["text"])
            + page.details("schema", page.code(json.dumps(schema, indent=2, ensure_ascii=False)))
            + "</div>"
        )
    everything = page.table(
        ("schema", "prompt", "answer", "tokens"),
        [(a["schema"], a["prompt"], a["text"], str(a["tokens"])) for a in answers],
        numeric=(3,),
    )
    return page.section(
        "json",
        "Guided JSON",
        *parts,
        f'<div class="pair">{"".join(examples)}</div>',
        page.details(f"All {len(answers)} answers", everything),
    )


def _equality(result: Result) -> str:
    check = result["equality"]
    parts = [
        page.paragraph(
            f"{result['greedy_equal']} of {result['greedy_total']} answers ({check['tokens_compared']} tokens) are "
            "what transformers picks in fp32: one teacher-forced pass over prompt and answer, compared token by token. "
            f"The prompt's own token ids agree for {check['prompts_tokenised_alike']} of {result['greedy_total']}. "
            f"All {len(result['minillm']['runs'])} runs gave the same tokens for "
            f"{result['minillm']['same_tokens_in_all_runs']} of {result['settings']['prompts']} prompts."
        )
    ]
    columns = ("prompt", "position", "served", "transformers", "logit gap")
    for kind, words in (
        ("ties", f"Ties: transformers' two best logits are closer than {check['tolerance']:g}, either token is greedy"),
        ("wrong", "Not equal"),
    ):
        rows = [
            (m["prompt"], str(m["position"]), repr(m["served_text"]), repr(m["expected_text"]), f"{m['gap']:.2g}")
            for m in check[kind]
        ]
        if rows:
            parts += [f"<h3>{words}</h3>", page.table(columns, rows, numeric=(1, 4))]
        else:
            parts.append(page.paragraph(f"{'Ties' if kind == 'ties' else 'Wrong tokens'}: none.", "muted"))
    return page.section("equality", "Same tokens as transformers", *parts)


def _answers(result: Result) -> str:
    rows = [
        (a["prompt"], a["answer"], f"{a['ttft_s'] * 1000:.0f}", f"{a['e2e_s']:.2f}", "yes" if a["equal"] else "NO")
        for a in result["answers"]
    ]
    head = ("prompt", "answer", "TTFT ms", "E2E s", "equal")
    first = result["answers"][0]
    return page.section(
        "answers",
        "What was said",
        page.paragraph(first["prompt"], "muted"),
        page.code(first["answer"]),
        page.paragraph(
            "To make all engines do the same work, the end-of-text token is ignored and every answer goes on to "
            f"exactly {result['settings']['max_tokens']} tokens. Shown here is the part before that token; "
            "demo.json has all.",
            "muted",
        ),
        page.details(f"All {len(rows)} answers", page.table(head, rows, numeric=(2, 3))),
    )


def _method(result: Result) -> str:
    environment, settings = result["environment"], result["settings"]
    facts = [
        ("weights", result["weights"]["name"]),
        ("processor", environment["cpu"]),
        ("cores, threads", f"{environment['cores']}, {environment['threads']} for every engine"),
        ("memory", "unknown" if environment["memory_gib"] is None else f"{environment['memory_gib']} GiB"),
        ("system", environment["os"]),
        ("dtype", environment["dtype"]),
        ("Python", environment["python"]),
        ("packages", ", ".join(f"{name} {version}" for name, version in environment["packages"].items())),
        ("git commit", environment["git_commit"] or "not a git clone"),
        ("CPU taken by other programs", f"{others_cpu(result)} during minillm / one by one / padded batch"),
        ("load", f"{settings['prompts']} prompts × {settings['max_tokens']} new tokens, all sent at once, greedy"),
    ]
    return page.section(
        "method",
        "Environment and method",
        page.table(("what", "value"), facts),
        page.paragraph(
            "Same weights, dtype, threads and chat template on both sides; greedy decoding; the end-of-text token "
            "ignored; a warm-up of each measurement is discarded. The server is stopped before the baselines run in "
            "a fresh process. Figures compare engines within this run: on another machine all of them move."
        ),
        page.paragraph("All the data of this page is in demo.json, next to it.", "muted"),
    )
