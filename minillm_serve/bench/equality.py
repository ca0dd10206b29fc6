"""Are the served tokens the ones ``transformers`` would pick? One teacher-forced fp32 pass per prompt and answer.

At every answer position the served token must be the argmax of transformers' logits given the same prefix. When it
is not, the gap between the best logit and the served token's logit decides: below ``tolerance`` it is a tie that
floating-point summation order broke the other way (shown in the report), otherwise the answer is not equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from minillm_serve.bench.child import Progress, child_main

if TYPE_CHECKING:
    import torch

DEFAULT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Mismatch:
    """A position where the served token is not transformers' argmax. ``gap`` is in logits."""

    position: int
    served: int
    expected: int
    gap: float


@dataclass
class Comparison:
    """One answer against transformers: ``equal`` when every token is the argmax or tied with it."""

    tokens: int
    prompt_equal: bool = True
    ties: list[Mismatch] = field(default_factory=list)
    wrong: list[Mismatch] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        return self.prompt_equal and self.tokens > 0 and not self.wrong


def compare_answer(logits: torch.Tensor, answer: Sequence[int], tolerance: float = DEFAULT_TOLERANCE) -> Comparison:
    """Judge ``answer`` by ``logits: [len(answer), vocab]``, row i being the prediction of answer token i.

    Raises ``ValueError`` when the shapes disagree or ``tolerance`` is not positive.
    """
    if logits.shape[0] != len(answer):
        raise ValueError(f"{len(answer)} answer tokens need as many rows of logits, got {logits.shape[0]}")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    comparison = Comparison(tokens=len(answer))
    for position, served in enumerate(answer):
        row = logits[position]
        expected = int(row.argmax())
        if expected == served:
            continue
        mismatch = Mismatch(position, served, expected, float(row[expected] - row[served]))
        (comparison.ties if mismatch.gap < tolerance else comparison.wrong).append(mismatch)
    return comparison


def teacher_forced_logits(network: Any, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """Logits ``[len(answer), vocab]`` of one pass over prompt and answer: row i saw everything before token i."""
    import torch

    ids = torch.tensor([[*prompt, *answer]])
    with torch.inference_mode():
        logits = network(input_ids=ids, use_cache=False, logits_to_keep=len(answer) + 1).logits[0]
    return logits[:-1]


def measure_equality(job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Compare every answer.

    ``job``: model, threads, tolerance, conversations, answers (served token ids), prompt_tokens (the server's count).
    The prompt's ids are checked too: our tokenizer and template must give what transformers gives.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from minillm_serve.model.tokenizer import Tokenizer

    torch.set_num_threads(job["threads"])
    progress("loading the model in transformers")
    network = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).eval()
    reference, ours = AutoTokenizer.from_pretrained(job["model"]), Tokenizer.from_folder(job["model"])
    comparisons = []
    cases = zip(job["conversations"], job["answers"], job["prompt_tokens"], strict=True)
    for done, (conversation, answer, prompt_tokens) in enumerate(cases, start=1):
        prompt = reference.apply_chat_template(conversation, add_generation_prompt=True, return_dict=False)
        comparison = compare_answer(teacher_forced_logits(network, prompt, answer), answer, job["tolerance"])
        comparison.prompt_equal = ours.apply_chat_template(conversation) == prompt and prompt_tokens == len(prompt)
        comparisons.append(comparison)
        if done % 10 == 0 or done == len(job["answers"]):
            equal = sum(c.equal for c in comparisons)
            progress(f"greedy equality: {done} of {len(job['answers'])} answers checked, {equal} equal")
    return {"comparisons": [asdict(c) | {"equal": c.equal} for c in comparisons], "tolerance": job["tolerance"]}


if __name__ == "__main__":
    child_main(measure_equality)
