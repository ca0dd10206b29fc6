"""What drafting gives a single request: two engines in one process, with and without it, by turns.

The weights are random, so nothing a head drafts would stand: drafts are accepted by lot (``rejection_sample_method``
``synthetic``), each with probability ``ACCEPTANCE`` if those before it were. All the work is done as if they were real.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minillm_serve.engine.core import StepStats
    from minillm_serve.engine.llm import LLM

ACCEPTANCE = 0.7
DRAFTS = (3, 4, 5)
PROMPT, NEW = 128, 512
DRAFT_VOCAB = 32768
KV_BYTES = 1 << 30
WARM_UP_TOKENS = 16


def write_head(shape: Mapping[str, Any], folder: Path) -> Path:
    """The folder of a draft head of one layer for a target of this shape; it holds config.json alone."""
    from minillm_serve.model.draft_head import ARCHITECTURE

    layers = shape["num_hidden_layers"]
    own = {
        "architectures": [ARCHITECTURE],
        "num_hidden_layers": 1,
        "draft_vocab_size": min(DRAFT_VOCAB, shape["vocab_size"]),
        "aux_layers": [layers // 3, 2 * layers // 3],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**shape, **own}), encoding="utf-8")
    return folder


def speculative(head: Path, drafts: int) -> dict[str, Any]:
    """The configuration that is measured."""
    return {
        "method": "eagle",
        "model": str(head),
        "num_speculative_tokens": drafts,
        "dynamic": False,
        "rejection_sample_method": "synthetic",
        "synthetic_acceptance_rates": [ACCEPTANCE ** (index + 1) for index in range(drafts)],
    }


class _Measured:
    """An engine and what its runs took: tokens a second, tokens and milliseconds a step, and of these the host's.

    The host's part is what is not spent waiting for the device; None where the runner waits for nothing (on a CPU).
    """

    def __init__(self, llm: LLM):
        self._llm = llm
        self.tok_s: list[float] = []
        self.step_ms: list[float] = []
        self.host_ms: list[float] = []
        self.tokens_per_step: list[float] = []
        self._steps, self._waited = 0, 0.0
        llm.core.on_step = self._count
        self._landings = getattr(llm.core.runner, "landings", None)
        if self._landings is not None:
            self._landings.start = self._watched(self._landings.start)

    def run(self, prompt: list[int], new: int, seed: int) -> None:
        from minillm_serve.params import SamplingParams

        params = SamplingParams(temperature=0.0, seed=seed, ignore_eos=True, max_tokens=new)
        self._steps, self._waited, begin = 0, 0.0, time.perf_counter()
        [output] = self._llm.generate([prompt], params)
        seconds = time.perf_counter() - begin
        if len(output.outputs[0].token_ids) != new:
            raise RuntimeError(f"{len(output.outputs[0].token_ids)} tokens were generated, {new} were asked for")
        self.tok_s.append(new / seconds)
        self.tokens_per_step.append(new / self._steps)
        self.step_ms.append(seconds / self._steps * 1e3)
        if self._landings is not None:
            self.host_ms.append((seconds - self._waited) / self._steps * 1e3)

    def forget(self) -> None:
        for numbers in (self.tok_s, self.step_ms, self.host_ms, self.tokens_per_step):
            numbers.clear()

    def _count(self, stats: StepStats) -> None:
        self._steps += bool(stats.new_tokens)

    def _watched(self, start: Callable[[Any], Callable[[], Any]]) -> Callable[[Any], Callable[[], Any]]:
        def watched(values: Any) -> Callable[[], Any]:
            wait = start(values)

            def timed() -> Any:
                begin = time.perf_counter()
                try:
                    return wait()
                finally:
                    self._waited += time.perf_counter() - begin

            return timed

        return watched


def measure_speculation(
    folder: str,
    shape: Mapping[str, Any],
    settings: Mapping[str, Any],
    say: Callable[[dict[str, Any]], None],
    repeats: int,
    scale: float = 1.0,
    drafts: Iterable[int] = DRAFTS,
) -> None:
    """Says one row for each number of drafts: medians of ``repeats`` runs, turn by turn with the plain engine.

    folder: the model's; settings: EngineConfig fields of both engines. scale: share of the lengths to keep.
    """
    from minillm_serve.engine.llm import LLM

    head = write_head(shape, Path(folder) / "head")
    common = {
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "enable_prefix_caching": False,
        "max_model_len": 2048,
        "max_num_seqs": 8,
        "kv_cache_memory_bytes": KV_BYTES,
        **settings,
    }
    prompt, new = [7 + index % 1000 for index in range(max(1, round(PROMPT * scale)))], max(2, round(NEW * scale))
    plain = _Measured(LLM(folder, **common))
    for count in drafts:
        drafted = _Measured(LLM(folder, speculative_config=speculative(head, count), **common))
        for engine in (plain, drafted):
            engine.run(prompt, min(new, WARM_UP_TOKENS), 0)
            engine.forget()
        for turn in range(repeats):
            plain.run(prompt, new, turn)
            drafted.run(prompt, new, turn)
        say(_row(count, plain, drafted))
        del drafted
        _free(common["device"])


def _row(drafts: int, plain: _Measured, drafted: _Measured) -> dict[str, Any]:
    return {
        "drafts": drafts,
        "acceptance": ACCEPTANCE,
        "ratio": median(drafted.tok_s) / median(plain.tok_s),
        "tok_s": median(drafted.tok_s),
        "runs": list(drafted.tok_s),
        "plain_tok_s": median(plain.tok_s),
        "plain_runs": list(plain.tok_s),
        "tokens_per_step": median(drafted.tokens_per_step),
        "step_ms": median(drafted.step_ms),
        "plain_step_ms": median(plain.step_ms),
        "host_ms": median(drafted.host_ms) if drafted.host_ms else None,
    }


def _free(device: str) -> None:
    import gc

    import torch

    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def speculation_line(row: Mapping[str, Any]) -> str:
    """A row, for a reader."""
    host = "" if row["host_ms"] is None else f", {row['host_ms']:.2f} of them the host's"
    return (
        f"{row['drafts']} drafts at {row['acceptance']:.0%}: {row['ratio']:.2f} times as fast "
        f"({row['tok_s']:.0f} tok/s, {row['plain_tok_s']:.0f} without), {row['tokens_per_step']:.2f} tokens a step, "
        f"{row['step_ms']:.2f} ms a step ({row['plain_step_ms']:.2f} without){host}"
    )
