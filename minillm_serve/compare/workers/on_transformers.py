"""transformers in three ways: its pipeline one prompt at a time or in one padded batch, and its continuous batching."""

from __future__ import annotations

import time
from typing import Any

import torch
from worker import Answer

PAGE = 32


class Clock:
    """A streamer that keeps only when each step's tokens came; the first call hands over the prompt."""

    def __init__(self, start: float):
        self._start = start
        self._calls: list[float] = []

    def put(self, _tokens: torch.Tensor) -> None:
        self._calls.append(time.perf_counter() - self._start)

    def end(self) -> None:
        pass

    @property
    def times(self) -> list[float]:
        return self._calls[1:]


class Pipeline:
    """A text-generation pipeline as a user would build it; batched: all prompts in one left-padded batch."""

    def __init__(self, command: dict[str, Any], batched: bool):
        from transformers import pipeline

        self._tokenizer, self._model, self.info = load_model(command)
        self._pipeline = pipeline("text-generation", model=self._model, tokenizer=self._tokenizer)
        self._batched = batched

    def answer(self, prompts: list[list[int]], max_tokens: int) -> list[Answer]:
        texts = [self._tokenizer.decode(prompt) for prompt in prompts]
        self._check_round_trip(prompts, texts)
        start = time.perf_counter()
        if self._batched:
            return self._generate(texts, prompts, max_tokens, start)
        return [
            self._generate([text], [prompt], max_tokens, start)[0] for text, prompt in zip(texts, prompts, strict=True)
        ]

    def _generate(self, texts: list[str], prompts: list[list[int]], max_tokens: int, start: float) -> list[Answer]:
        clock = Clock(start)
        outputs = self._pipeline(
            texts,
            batch_size=len(texts),
            max_new_tokens=max_tokens,
            do_sample=False,
            return_tensors=True,
            add_special_tokens=False,
            streamer=clock,
        )
        width, answers = max(map(len, prompts)), []
        for output in outputs:
            ids = output[0]["generated_token_ids"][width:]
            self._tokenizer.decode(ids, skip_special_tokens=True)  # a user wants text
            answers.append(Answer(len(ids), [int(i) for i in ids], clock.times))
        return answers

    def _check_round_trip(self, prompts: list[list[int]], texts: list[str]) -> None:
        """A pipeline takes text: it must give the very tokens that the other engines are given."""
        if self._tokenizer(texts, add_special_tokens=False)["input_ids"] != prompts:
            raise ValueError("the prompts' tokens do not survive decoding and encoding, so a pipeline cannot take them")

    def reset(self) -> None:
        """It keeps nothing from one call to the next."""


class ContinuousBatching:
    """Its continuous batching manager, started once as in a server: paged attention, requests of all lengths."""

    def __init__(self, command: dict[str, Any]):
        from transformers import GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        tokenizer, self._model, self.info = load_model(command)
        blocks = command["slots"] * (-(-command["max_len"] // PAGE) + 1)
        # Blocks are not shared: a repeat of the measurement must not find its own prompts in the cache.
        settings = {"max_batch_tokens": 512, "page_size": PAGE, "num_blocks": blocks, "allow_block_sharing": False}
        self.info["settings"] = settings | command["settings"]
        generation = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=tokenizer.pad_token_id)
        self._manager = self._model.init_continuous_batching(
            generation_config=generation, continuous_batching_config=ContinuousBatchingConfig(**self.info["settings"])
        )
        self._manager.start()

    def answer(self, prompts: list[list[int]], max_tokens: int) -> list[Answer]:
        start = time.perf_counter()
        names = self._manager.add_requests(inputs=prompts, max_new_tokens=max_tokens, record_timestamps=True)
        outputs: dict[str, Any] = {}
        while len(outputs) < len(names):
            output = self._manager.get_result(timeout=1)
            if output is None and not self._manager.is_running():
                raise RuntimeError("the generation thread ended")
            if output is not None and output.is_finished():
                if output.error:
                    raise RuntimeError(f"a request failed: {output.error}")
                outputs[output.request_id] = output
        return [_answer(outputs[name], start) for name in names]

    def reset(self) -> None:
        """Its blocks are not shared, so nothing is found again."""


def _answer(output: Any, start: float) -> Answer:
    tokens = [int(token) for token in output.generated_tokens]
    return Answer(len(tokens), tokens, [moment - start for moment in output.timestamps or ()])


def load_model(command: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """(tokenizer padding on the left, model that never ends by itself, info)."""
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(command["threads"])
    tokenizer = AutoTokenizer.from_pretrained(command["model"], padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(command["model"], dtype=getattr(torch, command["dtype"])).eval()
    # Without an EOS id nothing stops early and nothing is masked: the same work as ignore_eos elsewhere.
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    info = {"version": transformers.__version__, "attention": model.config._attn_implementation}
    return tokenizer, model, info


def load(command: dict[str, Any]) -> Any:
    """``mode``: ``one``, ``batch`` or ``continuous``."""
    if command["mode"] == "continuous":
        return ContinuousBatching(command)
    if command["settings"]:
        raise ValueError(f"the pipeline takes no settings, got {', '.join(command['settings'])}")
    return Pipeline(command, batched=command["mode"] == "batch")
