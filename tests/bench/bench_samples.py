"""Hand-made measurements shared by the bench tests: small, exact, with one of everything."""

from __future__ import annotations

from typing import Any

from minillm_serve.bench import result
from minillm_serve.bench.prompts import PROMPTS, guided_cases
from minillm_serve.bench.stats import LoadResult, Timeline


def request(
    external: str, prompt: int, arrival: float, first: float, finished: float, generated: int, preempted: int = 0
) -> dict[str, Any]:
    return {
        "id": external,
        "prompt_tokens": prompt,
        "prompt_ids": list(range(prompt)),
        "params": {"max_tokens": generated},
        "eos_token_ids": [2],
        "max_total_tokens": prompt + generated,
        "seed": 0,
        "arrival": arrival,
        "first_scheduled": arrival,
        "first_token": first,
        "finished": finished,
        "generated": generated,
        "preemptions": preempted,
        "finish_reason": "length",
        "stop_reason": None,
    }


def step(number: int, start: float, seconds: float, num_tokens: dict[str, int], **plan: Any) -> dict[str, Any]:
    return {
        "step": number,
        "num_tokens": num_tokens,
        **plan,
        "start": start,
        "schedule": 0.0,
        "execute": seconds,
        "update": 0.0,
        "tokens": {},
        "running": len(num_tokens),
        "waiting": 0,
        "free_blocks": 7,
        "cached_blocks": 0,
    }


def sample_trace() -> dict[str, Any]:
    """Request 0 prefills in two chunks beside request 1's decodes; request 1 is preempted after two tokens."""
    return {
        "schema": "minillm-trace/2",
        "config": {"model": "tiny"},
        "num_blocks": 9,
        "requests": {
            "0": request("chatcmpl-a", 6, 10.0, 10.4, 10.7, 3),
            "1": request("chatcmpl-b", 3, 10.0, 10.1, 10.8, 4, preempted=1),
        },
        "steps": [
            step(0, 10.0, 0.1, {"1": 3}, new_requests={"1": [3, 0]}),
            step(1, 10.1, 0.1, {"1": 1, "0": 3}, new_requests={"0": [6, 0]}),
            step(2, 10.3, 0.1, {"0": 3}, preempted=[1]),
            step(3, 10.4, 0.1, {"0": 1}),
            step(4, 10.5, 0.1, {"0": 1, "1": 5}, new_requests={"1": [5, 0]}),
            step(5, 10.7, 0.1, {"1": 1}),
        ],
        "events": [],
    }


def timeline(name: str, sent: float, chunks: list[float], **fields: Any) -> Timeline:
    base = {"completion_tokens": len(chunks), "token_ids": list(range(len(chunks))), "prompt_tokens": 5}
    return Timeline(name, sent, chunks, **(base | fields))


def sample_result(valid: bool = True, text: str = "Paris & <b>more</b>") -> dict[str, Any]:
    """A complete result as the demo builds it, from two runs of two prompts and five guided answers."""
    prompts = PROMPTS[:2]
    runs = [
        LoadResult((timeline("a", 0.0, [0.5, 1.0], text=text), timeline("b", 0.1, [0.6, 1.0 + late], text=text)))
        for late in (0.0, 1.0)
    ]
    baselines = {
        "one_by_one": [{"tokens": 64, "seconds": 4.0, "tok_s": 16.0, "others_cpu": 0.02}],
        "padded_batch": [{"tokens": 128, "seconds": 1.0, "tok_s": 128.0, "others_cpu": None}],
    }
    comparison = {"tokens": 2, "prompt_equal": True, "ties": [], "wrong": [], "equal": True}
    tie = {"position": 1, "served": 7, "expected": 8, "gap": 0.0004}
    measured = {"comparisons": [comparison, comparison | {"ties": [tie]}], "tolerance": 1e-3}
    cases = guided_cases(5)
    answers = {
        "person": '{"name": "Ana", "age": 30, "city": "Lima", "student": true}',
        "review": '{"sentiment": "neutral", "stars": 3, "reason": "It is fine."}',
        "recipe": '{"dish": "soup", "minutes": 30, "ingredients": ["water", "salt"]}',
        "country": '{"country": "Peru", "capital": {"name": "Lima", "coastal": true}, "languages": ["Spanish"]}',
        "ticket": '{"kind": "ticket", "title": "Login fails", "priority": "high", "assignee": null}',
    }
    if not valid:
        answers["person"] = '{"name": "Ana", "age": 30}'
    guided = LoadResult(tuple(timeline(c.name, 0.0, [1.0], text=answers[c.name], finish_reason="stop") for c in cases))

    def decode(ids: Any) -> str:
        return " ".join(map(str, ids))

    outcome = result.throughput(runs, baselines, [0])
    outcome |= result.guided(cases, guided) | result.equality(prompts, measured, decode)
    return outcome | {
        "answers": result.answers(prompts, runs[0], measured, lambda ids: text, frozenset({1})),
        "created": "2026-01-02 03:04 UTC",
        "weights": {"model": "tiny", "name": "Tiny random <weights>"},
        "settings": {
            "prompts": 2,
            "max_tokens": 2,
            "runs": 2,
            "json_requests": 5,
            "baseline_sample": 1,
            "batch_runs": 1,
        },
        "environment": {
            "cpu": "A processor",
            "cores": 2,
            "threads": 2,
            "dtype": "float32",
            "memory_gib": None,
            "os": "Linux",
            "python": "3.11.0",
            "packages": {"torch": "2.13.0"},
            "git_commit": None,
        },
    }
