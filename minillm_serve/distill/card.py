"""A head's model card: every figure in it comes from the ``training.json`` that the training wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from minillm_serve.config import ConfigError

PICTURE = "training.png"


def write_card(folder: str | Path) -> Path:
    """Write ``README.md`` and the picture of the training into a head's folder. Raises :class:`ConfigError`."""
    folder = Path(folder)
    path = folder / "training.json"
    if not path.is_file():
        raise ConfigError(f"{folder} has no training.json: train the head first")
    training = json.loads(path.read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _draw(training, folder / PICTURE)
    card = folder / "README.md"
    card.write_text(card_text(training, config), encoding="utf-8")
    return card


def card_text(training: dict[str, Any], config: dict[str, Any]) -> str:
    """The card, as Markdown."""
    data, settings, environment = training["data"], training["settings"], training["environment"]
    shares = data["settings"]
    where = training["gpu"] or environment["cpu"]
    steps = settings["steps"]
    lines = [
        "---", "license: apache-2.0", "tags: [speculative-decoding, eagle]", "---", "",
        f"# A draft head for {config['target']}", "",
        f"It drafts tokens that {config['target']} verifies. EAGLE-style (arXiv:2401.15077), trained unrolled over "
        "its own outputs (arXiv:2408.15766, arXiv:2503.01840). Without the target it is of no use.", "",
        f"{training['parameters']:,} parameters: {config['num_hidden_layers']} layer(s) of the target's shape, reading "
        f"the residual stream before layers {', '.join(map(str, config['aux_layers']))} and the final hidden state; "
        f"{config['draft_vocab_size']:,} draft tokens, which are {training['draft_vocabulary_covers']:.2%} of the "
        "held-out answers' tokens.", "",
        "## Acceptance on held-out prompts", "",
        "Every position of an answer is drafted from, greedily. *Agreement*: the draft is the target's likeliest token "
        "given the text before it. *Acceptance*: it and all drafts before it are the text's tokens.", "",
        "| answers | figure | " + " | ".join(f"draft {i + 1}" for i in range(steps)) + " | tokens a step | positions |",
        "|---|---|" + "---|" * (steps + 2),
    ]  # fmt: skip
    for kind, found in training["held_out"].items():
        rows = {"agreement": ["", f"{found['positions']:,}"]}
        if kind == "greedy":
            rows["acceptance"] = [f"{found['tokens_per_step']:.2f}", f"{found['positions']:,}"]
        for name, rest in rows.items():
            cells = [kind, name, *(f"{share:.1%}" for share in found[name]), *rest]
            lines.append("| " + " | ".join(cells) + " |")
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in data["dropped_prompts"].items()) or "none"
    lines += [
        "", "Prompts of one hash are held out, so none of them was trained on. Drafting begins at every position here; "
        "in service it begins where the last accepted draft ended, which is harder on average.", "",
        "## Data", "",
        f"All text was written by {data['target']}: {data['texts']:,} answers, {data['tokens']:,} tokens of which "
        f"{data['answer_tokens']:,} are answers, {data['held_out_texts']:,} answers held out. Up to "
        f"{shares['invented']:.0%} of the prompts were invented by it, from the chat template's user header at "
        "temperature 1 (Magpie, arXiv:2406.08464); the others fill this project's templates from lists of words. "
        f"{shares['greedy']:.0%} of the answers are greedy, the others sampled at temperature {shares['temperature']}. "
        f"Prompts dropped: {dropped}. The prompts that the engine's benchmarks ask are reserved, and never trained on.",
        "", "## Training", "",
        f"![loss and agreement]({PICTURE})", "",
        f"{training['steps']:,} steps of {settings['batch_tokens']:,} positions ({training['epochs']} epochs) in "
        f"{training['seconds']:,.0f} s on {where}; {steps} draft steps unrolled, step j counts {settings['decay']}^j; "
        "soft cross entropy with the target's distribution over the draft tokens. The curve and all settings are in "
        "`training.json`.", "", "```", data["command"], training["command"], "```", "",
        "| environment | |", "|---|---|",
        *(f"| {name} | {_cell(value)} |" for name, value in environment.items() if value is not None),
        "", "## Licence", "",
        "Apache-2.0, as the target is: the weights began as the target's, and the text is the target's own.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return ", ".join(f"{name} {version}" for name, version in value.items()) if isinstance(value, dict) else str(value)


def _draw(training: dict[str, Any], path: Path) -> None:
    """Loss by step, and agreement on held-out texts by step, one line per draft step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for step in range(training["settings"]["steps"]):
        label = f"draft {step + 1}"
        curve, snapshots = training["curve"], training["snapshots"]
        left.plot([one["step"] for one in curve], [one["loss"][step] for one in curve], label=label, linewidth=1)
        shares = [100 * one["agreement"][step] for one in snapshots]
        right.plot([one["step"] for one in snapshots], shares, label=label, marker=".")
    left.set(xlabel="step", ylabel="cross entropy (nats)", title="Loss")
    right.set(xlabel="step", ylabel="%", title="Agreement with the target on held-out texts", ylim=(0, 100))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)
