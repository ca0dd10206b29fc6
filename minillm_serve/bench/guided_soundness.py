"""``minillm bench guided-soundness``: what the engine finishes under a JSON Schema, parsed strictly and validated.

The real engine with batches, jump-ahead and texts that close within max_tokens. ``--hostile``: a random model whose
logits are thrown away; every allowed token is as likely as the sampler below likes it, at max_tokens from the least
possible on. Without it the model itself writes, at ``--temperature``.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from minillm_serve.bench.environment import available_cores, describe_environment
from minillm_serve.bench.guided import read_cases
from minillm_serve.bench.judge import judge_by_draft
from minillm_serve.bench.random_model import SHAPE, build_random_model
from minillm_serve.config import ConfigError, EngineConfig
from minillm_serve.model.store import DEFAULT_MODEL, resolve_model
from minillm_serve.params import RequestError, SamplingParams, StructuredOutputsParams

if TYPE_CHECKING:
    from torch import Tensor

    from minillm_serve.engine.llm import LLM
    from minillm_serve.sample.sampler import SampleSettings

SCHEMAS_AT_ONCE = 20
SLACK = (0, 4, 16, 64, 192)  # tokens beyond the least that a text may need, in turns
SHOWN_CHARS = 600
TASTES = (1.0, 1.0, 4.0, 0.25)  # exponents: alike, alike, rather low token ids (short tokens), rather high ones


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags on ``parser``."""
    parser.add_argument("--data", required=True, type=Path, help="JSON lines (.gz) with id, schema and tests")
    parser.add_argument("--schemas", type=int, default=200, help="schemas that the engine accepts (%(default)s)")
    parser.add_argument("--generations", type=int, default=2000, help="texts in all (%(default)s)")
    parser.add_argument("--hostile", action="store_true", help="random logits instead of a model's")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="who writes, or whose tokenizer (%(default)s)")
    parser.add_argument("--quantization", help="int8: 8-bit weights and activations (default: none)")
    parser.add_argument("--temperature", type=float, default=1.0, help="without --hostile (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=192,
                        help="without --hostile; more where the shortest text needs them (%(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="which schemas, and every draw (%(default)s)")
    parser.add_argument("--threads", type=int, default=available_cores(), help="threads of the model (%(default)s)")
    parser.add_argument("--no-jump-ahead", action="store_true", help="every token is drawn")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write counts and every failure here")


def run(args: argparse.Namespace) -> int:
    """0; 1 if a text was cut, is not JSON or is not valid."""
    if not 1 <= args.schemas <= args.generations:
        raise ConfigError(f"--schemas must be 1 to --generations = {args.generations}, got {args.schemas}")
    cases = read_cases(args.data)
    random.Random(args.seed).shuffle(cases)
    console = Console()
    with _engine(args) as llm:
        accepted, refused = _accepted(llm, cases, args.schemas)
        if not accepted:
            raise ConfigError("the engine accepts none of these schemas")
        tally = Tally()
        for start in range(0, len(accepted), SCHEMAS_AT_ONCE):
            _generate(llm, accepted, start, args, tally)
            console.print(f"{tally.counts['generations']} of {args.generations}: {dict(tally.counts)}", highlight=False)
    document = {
        "kind": "guided-soundness",
        "settings": {
            name: getattr(args, name)
            for name in ("schemas", "generations", "hostile", "quantization", "temperature", "max_tokens", "seed")
        } | {"jump_ahead": not args.no_jump_ahead, "model": args.model, "data": args.data.name},
        "schemas": len(accepted),
        "refused": refused,
        "counts": dict(tally.counts),
        "failures": tally.failures,
        "environment": describe_environment(args.threads, "float32"),
    }  # fmt: skip
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print(f"{len(tally.failures)} failures; {len(refused)} schemas refused on the way", highlight=False)
    for failure in tally.failures[:5]:
        console.print(f"{failure['id']}: {failure['reason']}\n    {failure['text']}", highlight=False, markup=False)
    return int(bool(tally.failures))


@dataclass
class Accepted:
    """A schema that compiles. needed: tokens that its shortest text may take, the end included."""

    id: str
    schema: Any
    constraint: StructuredOutputsParams
    needed: int


class Tally:
    """What came out."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: list[dict[str, Any]] = []

    def book(self, case: Accepted, params: SamplingParams, sample: Any) -> None:
        verdict = judge_by_draft(sample.text, case.schema, sample.finish_reason)
        self.counts["generations"] += 1
        self.counts["tokens"] += len(sample.token_ids)
        self.counts["valid" if verdict.valid else "invalid"] += 1
        if not verdict.valid:
            text = sample.text if len(sample.text) <= SHOWN_CHARS else sample.text[:SHOWN_CHARS] + "…"
            self.failures.append(
                {
                    "id": case.id,
                    "reason": verdict.reason,
                    "finish_reason": sample.finish_reason,
                    "text": text,
                    "seed": params.seed,
                    "max_tokens": params.max_tokens,
                    "needed": case.needed,
                }
            )


def _accepted(llm: LLM, cases: Sequence[dict[str, Any]], count: int) -> tuple[list[Accepted], list[dict[str, str]]]:
    """The first ``count`` schemas that compile and have a bound, and why those before them were refused."""
    found: list[Accepted] = []
    refused: list[dict[str, str]] = []
    for case in cases:
        if len(found) == count:
            break
        try:
            constraint = StructuredOutputsParams(json=case["schema"], always_closes=True)
            group = llm.core.prepare([0], SamplingParams(max_tokens=None, structured_outputs=constraint))
        except RequestError as error:
            refused.append({"id": case["id"], "why": str(error)})
            continue
        found.append(Accepted(case["id"], case["schema"], constraint, group.grammar.matcher().cost() + 1))
    return found, refused


def _generate(llm: LLM, accepted: Sequence[Accepted], start: int, args: argparse.Namespace, tally: Tally) -> None:
    """The texts of the schemas from ``start`` on, all in one batch."""
    prompts, params, cases = [], [], []
    for number in range(start, min(start + SCHEMAS_AT_ONCE, len(accepted))):
        case = accepted[number]
        share = range(number * args.generations // len(accepted), (number + 1) * args.generations // len(accepted))
        prompt = [0] if args.hostile else _prompt(llm, case.schema)
        for seed in share:
            least = case.needed + SLACK[seed % len(SLACK)] if args.hostile else max(args.max_tokens, case.needed)
            prompts.append(prompt)
            cases.append(case)
            params.append(
                SamplingParams(
                    max_tokens=min(least, llm.core.admission.max_model_len - len(prompt)),
                    temperature=1.0 if args.hostile else args.temperature,
                    seed=args.seed * 1_000_003 + seed,
                    structured_outputs=case.constraint,
                )
            )
    for case, asked, output in zip(cases, params, llm.generate(prompts, params), strict=True):
        tally.book(case, asked, output.outputs[0])


def _prompt(llm: LLM, schema: Any) -> list[int]:
    text = f"Write one example of a JSON document for this JSON Schema:\n{json.dumps(schema)[:500]}"
    return llm.tokenizer.apply_chat_template([{"role": "user", "content": text}])


@contextmanager
def _engine(args: argparse.Namespace) -> Iterator[LLM]:
    from minillm_serve.engine.llm import LLM
    from minillm_serve.seams import SAMPLE, Seams

    source = resolve_model(args.model)
    settings = {"max_num_seqs": 64, "num_threads": args.threads, "guided_jump_ahead": not args.no_jump_ahead}
    if not args.hostile:
        yield LLM(source, quantization=args.quantization, **settings)
        return
    with tempfile.TemporaryDirectory() as folder:
        model = build_random_model(source, Path(folder) / "random")
        blocks = 4 * SHAPE["max_position_embeddings"] // EngineConfig.block_size
        yield LLM(model, num_kv_blocks=blocks, seams=Seams({SAMPLE: hostile_sample}), **settings)


def hostile_sample(logits: Tensor, settings: SampleSettings) -> Tensor:
    """Any token that is not forbidden, by the row's seed and position alone; its seed says which it likes."""
    import numpy as np
    import torch

    drawn = []
    for row, seed, position in zip(logits.numpy(), settings.seeds.tolist(), settings.positions.tolist(), strict=True):
        allowed = np.flatnonzero(row > -np.inf)
        share = random.Random(seed * 100_003 + position).random() ** TASTES[seed % len(TASTES)]
        drawn.append(int(allowed[int(share * len(allowed))]) if len(allowed) else 0)
    return torch.tensor(drawn)
