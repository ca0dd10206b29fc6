"""What 8-bit arithmetic costs in quality: ``python -m minillm_serve.bench.perplexity [--json FILE]``.

Perplexity is exp of the mean negative log-likelihood of a text's tokens: how many equally likely tokens the model
hesitates between. The text is the opening of Jane Austen's «Pride and Prejudice» (1813, public domain), chapters 1
and 2, read as one sequence; each setting of the engine reads the same tokens.
"""

from __future__ import annotations

import argparse
import json
import math
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from minillm_serve.attention.backends import KVCache
from minillm_serve.bench.environment import describe_environment
from minillm_serve.engine.llm import LLM
from minillm_serve.model.llama import LlamaModel
from minillm_serve.model.store import DEFAULT_MODEL

CHUNK = 256  # tokens whose logits are in memory at once
SETTINGS: dict[str, dict[str, str]] = {
    "fp32": {},
    "int8": {"quantization": "int8"},
    "fp32, int8 KV": {"kv_cache_dtype": "int8"},
    "int8, int8 KV": {"quantization": "int8", "kv_cache_dtype": "int8"},
}


def fixed_text() -> str:
    """The text that every figure is taken on."""
    return resources.files("minillm_serve.bench").joinpath("data/pride_and_prejudice.txt").read_text(encoding="utf-8")


@torch.inference_mode()
def perplexity(model: LlamaModel, kv_cache: KVCache, ids: list[int]) -> float:
    """Perplexity of ids[1:], each predicted from all that stands before it.

    The sequence takes the cache's blocks from the first on: nobody else may be using them. Raises ValueError if it is
    shorter than two tokens.
    """
    if len(ids) < 2:
        raise ValueError(f"perplexity needs at least two tokens, got {len(ids)}")
    tokens, places = torch.tensor(ids), torch.arange(len(ids))
    table = torch.arange(-(-len(ids) // kv_cache.block_size)).unsqueeze(0)
    total = 0.0
    for start in range(0, len(ids) - 1, CHUNK):
        chunk = places[start : min(start + CHUNK, len(ids) - 1)]
        attention = kv_cache.plan(chunk, table, [start + len(chunk)], [len(chunk)])
        logits = model.forward(tokens[chunk], chunk, attention, torch.arange(len(chunk)))
        total += cross_entropy(logits, tokens[chunk + 1], reduction="none").double().sum().item()
    return math.exp(total / (len(ids) - 1))


def measure(model: str, settings: dict[str, str], text: str) -> tuple[float, int]:
    """Perplexity of ``text`` under some settings of the engine, and its number of tokens."""
    with LLM(model, num_kv_blocks=512, max_num_seqs=1, **settings) as llm:
        ids = llm.tokenizer.encode(text)
        runner = llm.core.runner
        return perplexity(runner.model, runner.kv_cache, ids), len(ids)


def compare(model: str) -> list[dict[str, Any]]:
    """One row for each of SETTINGS: its perplexity on the fixed text and the ratio to fp32's."""
    rows: list[dict[str, Any]] = []
    for name, settings in SETTINGS.items():
        value, tokens = measure(model, settings, fixed_text())
        base = rows[0]["perplexity"] if rows else value
        rows.append({"settings": name, "tokens": tokens, "perplexity": value, "ratio_to_fp32": value / base})
    return rows


def main() -> None:
    name = "python -m minillm_serve.bench.perplexity"
    parser = argparse.ArgumentParser(prog=name, description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name or folder (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows and the environment there")
    args = parser.parse_args()
    rows = compare(args.model)
    for row in rows:
        print(f"{row['settings']:16s} perplexity {row['perplexity']:8.4f}   x {row['ratio_to_fp32']:.4f}")
    if args.json:
        report = {"environment": describe_environment(torch.get_num_threads(), "float32"), "model": args.model}
        args.json.write_text(json.dumps(report | {"results": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
