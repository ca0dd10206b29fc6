"""The baselines: the ``transformers`` pipeline, one prompt at a time and all prompts in one padded batch.

Same model folder, dtype, threads and prompts as the server; greedy; EOS ignored, so that every answer has exactly
``max_tokens`` tokens; a warm-up is run first and discarded. Runs in a process of its own (:mod:`.child`).
"""

from __future__ import annotations

import time
from typing import Any

from minillm_serve.bench.child import Progress, child_main
from minillm_serve.bench.contention import OtherPrograms
from minillm_serve.bench.prompts import Conversation


class PipelineBaseline:
    """A text-generation pipeline as a user would build it, plus what exact measuring needs."""

    def __init__(self, model: str, dtype: str, threads: int):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

        torch.set_num_threads(threads)
        tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        network = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
        self.tokenizer = tokenizer
        self.pipeline = pipeline("text-generation", model=network, tokenizer=tokenizer)
        # Without an EOS id nothing stops early and nothing is masked: the same work as the server's ignore_eos.
        # Some releases of transformers give the pipeline a copy of the model's settings.
        for settings in (network.generation_config, getattr(self.pipeline, "generation_config", None)):
            if settings is not None:
                settings.eos_token_id = None
                settings.pad_token_id = tokenizer.pad_token_id

    def generate(self, conversations: list[Conversation], max_tokens: int, batch_size: int) -> tuple[int, float]:
        """Answer the conversations; returns (new tokens, seconds), detokenising included."""
        start = time.perf_counter()
        outputs = self.pipeline(
            conversations,
            batch_size=batch_size,
            max_new_tokens=max_tokens,
            do_sample=False,
            return_tensors=True,
        )
        sequences = [output[0]["generated_token_ids"][-max_tokens:] for output in outputs]
        self.tokenizer.batch_decode(sequences, skip_special_tokens=True)
        elapsed = time.perf_counter() - start
        self._check_lengths(conversations, outputs, max_tokens, batch_size)
        return max_tokens * len(conversations), elapsed

    def _check_lengths(
        self, conversations: list[Conversation], outputs: list, max_tokens: int, batch_size: int
    ) -> None:
        """A figure in tokens per second is only as good as its count: every sequence must be prompt + max_tokens."""
        lengths = [
            len(self.tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False))
            for c in conversations
        ]
        for first in range(0, len(conversations), batch_size):
            padded = max(lengths[first : first + batch_size])
            for output in outputs[first : first + batch_size]:
                got = len(output[0]["generated_token_ids"])
                if got != padded + max_tokens:
                    raise RuntimeError(f"transformers returned {got} tokens, expected {padded} + {max_tokens}")


def measure_baselines(job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Measure both baselines.

    ``job``: model, dtype, threads, max_tokens, conversations, sample (indices answered one by one), batch_runs.
    """
    progress("loading the model in transformers")
    baseline = PipelineBaseline(job["model"], job["dtype"], job["threads"])
    conversations, max_tokens = job["conversations"], job["max_tokens"]
    warm_up = min(8, max_tokens)
    baseline.generate(conversations[:1], warm_up, 1)
    singles = []
    for done, index in enumerate(job["sample"], start=1):
        singles.append(_figure(baseline, [conversations[index]], max_tokens))
        progress(f"one by one: {done} of {len(job['sample'])} prompts, {singles[-1]['tok_s']:.1f} tok/s")
    baseline.generate(conversations[:8], warm_up, 8)
    batches = []
    for done in range(1, job["batch_runs"] + 1):
        progress(f"one padded batch of {len(conversations)}: run {done} of {job['batch_runs']}")
        batches.append(_figure(baseline, conversations, max_tokens))
    return {"one_by_one": singles, "padded_batch": batches}


def _figure(baseline: PipelineBaseline, conversations: list[Conversation], max_tokens: int) -> dict[str, Any]:
    """Answer the conversations in one batch; ``others_cpu`` says how much of the CPU other programs took."""
    with OtherPrograms() as others:
        tokens, seconds = baseline.generate(conversations, max_tokens, len(conversations))
    return {"tokens": tokens, "seconds": seconds, "tok_s": tokens / seconds, "others_cpu": others.share}


if __name__ == "__main__":
    child_main(measure_baselines)
