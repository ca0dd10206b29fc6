"""Training of a draft head: unrolled over its own outputs, toward the target's distribution over the draft tokens."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from minillm_serve.bench.environment import describe_environment
from minillm_serve.config import ConfigError
from minillm_serve.distill.data import Texts, read
from minillm_serve.distill.model import DraftHead, HeadConfig, RMSNorm, back
from minillm_serve.distill.packing import Rows, pack
from minillm_serve.distill.teacher import Teacher, layer_output
from minillm_serve.distill.vocabulary import coverage, frequent_tokens, special_tokens
from minillm_serve.model.store import DEFAULT_MODEL, resolve_model, weights_name

LOG_EVERY = 10  # steps
SAY_EVERY = SAVE_EVERY = 10.0  # seconds
SNAPSHOTS = 20  # measurements on held-out texts while it trains
SNAPSHOT_ROWS = 64
FINAL_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """model: the target, a known model or a folder. device: ``cpu`` or ``cuda``. seed: of weights and order of texts.

    The head. layers: how many, begun as the target's last ones. aux_layers: of the target, comma-separated (None: at a
    third and two thirds). draft_vocab_size: the target's most frequent tokens that it can draft. own_head: train an LM
    head, begun as the target's rows, instead of reading with the target's.

    Training. steps: draft steps unrolled; step j counts decay^j. epochs: passes over the texts; minutes: stop earlier,
    with the learning rate at its end by then (so the weights depend on the machine's speed; None: they do not).
    batch_tokens: positions a step; width: of a row. lr: the highest; warmup: share of the training until it is reached.
    remember: read all texts with the target once and keep its features (7 kB a token on a CPU): for few texts.
    compile: let torch.compile fuse the target's layers, the unrolled head and the loss: a minute or more at the start,
    then less memory and shorter steps (Ansel et al. 2024, doi:10.1145/3620665.3640366).
    """

    model: str = DEFAULT_MODEL
    device: str = "cpu"
    seed: int = 0
    layers: int = 1
    aux_layers: str | None = None
    draft_vocab_size: int = 8192
    own_head: bool = False
    steps: int = 5
    decay: float = 0.8
    epochs: float = 6.0
    minutes: float | None = None
    batch_tokens: int = 16384
    width: int = 512
    lr: float = 1e-3
    warmup: float = 0.03
    weight_decay: float = 0.01
    clip: float = 1.0
    remember: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("layers", "draft_vocab_size", "steps", "batch_tokens", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("decay", "epochs", "lr", "clip"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup is a share of the training: from 0 to below 1, got {self.warmup}")
        if self.batch_tokens < self.width:
            raise ConfigError(f"batch_tokens must hold one row of width {self.width}, got {self.batch_tokens}")


TOY_TRAIN = TrainSettings(
    epochs=1000, minutes=2, batch_tokens=512, width=128, draft_vocab_size=2048, steps=3, remember=True
)


@dataclass(frozen=True)
class Batch:
    """What a step of training or measuring reads of some rows. N: positions whose next token is the target's answer.

    embeddings, features, position: see :meth:`DraftHead.unroll`. index: [N], into the flattened rows. chains: per draft
    step, [N]: True where its chain began in the answer too. hidden: [N, H], the target's final states. next: [N], the
    tokens that follow in the text.
    """

    embeddings: Tensor
    features: Tensor
    position: Tensor
    index: Tensor
    chains: list[Tensor]
    hidden: Tensor
    next: Tensor


def train(
    data: str | Path, out: str | Path, settings: TrainSettings, command: str = "", say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Train a head on the texts in ``data`` and save it in ``out``; returns what ``training.json`` there says.

    Raises :class:`ConfigError` when the texts are another target's, or too few to hold some out.
    """
    folder = resolve_model(settings.model)
    texts, made = read(data)
    if made["target"] != (name := weights_name(folder)):
        raise ConfigError(f"{data} was written by {made['target']}, the target is {name}: make it write its own")
    learnt, kept = np.flatnonzero(~texts.held_out), texts.held_out
    held_out = {"greedy": np.flatnonzero(kept & texts.greedy), "sampled": np.flatnonzero(kept & ~texts.greedy)}
    if not len(learnt) or not any(map(len, held_out.values())):
        raise ConfigError(f"{data} needs texts to train on and held-out ones to measure with: make more of them")
    torch.manual_seed(settings.seed)
    cuda = settings.device == "cuda"
    teacher = Teacher(folder, _aux_layers(settings, folder), settings.device, torch.bfloat16 if cuda else torch.float32)
    token_map = frequent_tokens(texts, learnt, settings.draft_vocab_size, teacher.config, special_tokens(folder)).to(
        settings.device
    )
    head = new_head(teacher, token_map, settings, name.partition(",")[0]).to(settings.device)
    loop = _Loop(head, teacher, token_map, settings, out, say)
    measured = {
        kind: loop.prepare(pack(texts, which, settings.width).part(slice(FINAL_ROWS)).to(settings.device))
        for kind, which in held_out.items()
        if len(which)
    }
    training = loop.run(texts, learnt, measured)
    head.save(out, token_map)
    result = {
        "data": made,
        "settings": asdict(settings),
        **training,
        "held_out": {kind: loop.measure(batches) for kind, batches in measured.items()},
        "draft_vocabulary_covers": coverage(texts, np.flatnonzero(kept), token_map),
        "parameters": sum(p.numel() for p in head.parameters()),
        "command": command,
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "environment": describe_environment(torch.get_num_threads(), "bfloat16" if cuda else "float32"),
    }
    (Path(out) / "training.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for kind, found in result["held_out"].items():
        say(f"train: held-out {kind}: {json.dumps(found)}")
    return result


class _Loop:
    """The steps of training, and what they are measured by."""

    def __init__(
        self,
        head: DraftHead,
        teacher: Teacher,
        token_map: Tensor,
        settings: TrainSettings,
        out: str | Path,
        say: Callable[[str], None],
    ):
        self.head, self.teacher, self.token_map, self.settings = head, teacher, token_map, settings
        self.out, self.say = out, say
        self.target_rows = teacher.lm_head[token_map]
        self.batch_rows = max(1, settings.batch_tokens // settings.width)
        weights = settings.decay ** torch.arange(settings.steps, device=token_map.device)
        self.weights = weights / weights.sum()
        self.run_layer, self.unroll, self.step_loss = layer_output, head.unroll, step_loss
        if settings.compile:
            self.run_layer, self.unroll, self.step_loss = map(torch.compile, (layer_output, head.unroll, step_loss))

    def run(self, texts: Texts, learnt: np.ndarray, measured: dict[str, list[Batch]]) -> dict[str, Any]:
        """Train; the curve (mean loss of each stretch of steps) and the snapshots on held-out texts."""
        s = self.settings
        optimizer = torch.optim.AdamW(
            self.head.parameters(), betas=(0.9, 0.95), weight_decay=s.weight_decay, fused=s.device == "cuda"
        )
        rng = np.random.default_rng(s.seed)
        snapshot = next(iter(measured.values()))[: max(1, SNAPSHOT_ROWS // self.batch_rows)]
        curve: list[dict[str, Any]] = []
        snapshots: list[dict[str, Any]] = []
        rows, features, order, epoch_steps = None, None, iter(()), 0
        if s.remember:
            rows = pack(texts, rng.permutation(learnt), s.width).to(s.device)
            features = self._features(rows)
        start = saved = said = time.monotonic()
        step, losses = 0, []
        while True:
            if (which := next(order, None)) is None:
                if features is None:
                    rows = pack(texts, rng.permutation(learnt), s.width).to(s.device)
                chosen = torch.from_numpy(rng.permutation(len(rows))).to(s.device).split(self.batch_rows)
                epoch_steps = max(1, len(rows) // self.batch_rows)  # what does not fill a batch sits this epoch out
                order = iter(chosen[:epoch_steps])
                which = next(order)
            now = time.monotonic()
            share = step / max(1, round(s.epochs * epoch_steps))
            if s.minutes is not None:
                share = max(share, (now - start) / (60 * s.minutes))
            if share * SNAPSHOTS >= len(snapshots) or share >= 1:
                snapshots.append({"step": step, "share": round(min(share, 1.0), 4), **self.measure(snapshot)})
            if share >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = s.lr * min(1.0, (share + 1e-6) / (s.warmup or 1e-6)) * _cosine(share, s.warmup)
            batch = self.batch(rows.part(which), None if features is None else features[which])
            losses.append(self._step(optimizer, batch))
            step += 1
            if step % LOG_EVERY == 0:
                mean = torch.stack(losses).mean(0).tolist()
                curve.append({"step": step, "seconds": round(time.monotonic() - start, 2), "lr": group["lr"],
                              "loss": [round(x, 4) for x in mean]})  # fmt: skip
                losses = []
                if now - said > SAY_EVERY:
                    said = now
                    self.say(f"train: {now - start:6.0f} s  step {step}, {share:.0%}, loss {mean[0]:.3f} … "
                             f"{mean[-1]:.3f}, {step * s.batch_tokens / (now - start + 1e-9):,.0f} positions/s, "
                             f"held-out agreement {snapshots[-1]['agreement']}")  # fmt: skip
            if now - saved > 6 * SAVE_EVERY:
                saved = now
                self.head.save(self.out, self.token_map)
        return {"steps": step, "seconds": round(time.monotonic() - start, 1), "epochs": round(step / epoch_steps, 2),
                "positions": step * s.batch_tokens, "curve": curve, "snapshots": snapshots}  # fmt: skip

    def _step(self, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
        """One step of the optimiser; the losses [steps], on the device."""
        self.head.train()
        losses = self.losses(batch)
        optimizer.zero_grad(set_to_none=True)
        (losses * self.weights).sum().backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), self.settings.clip)
        optimizer.step()
        return losses.detach()

    @torch.no_grad()
    def batch(self, rows: Rows, features: Tensor | None = None) -> Batch:
        """Everything of some rows that comes from the target. features: [rows, T, (aux + 1) H], if they are known."""
        tokens, position = rows.tokens.long(), rows.position
        if features is None:
            features = self.features(rows)
        follows = torch.zeros_like(rows.answer)
        follows[:, :-1] = rows.answer[:, :-1] & rows.answer[:, 1:] & (position[:, 1:] > 0)
        index = follows.flatten().nonzero().squeeze(1)
        begun = [back(follows[..., None], step)[..., 0] & (position >= step) for step in range(self.settings.steps)]
        hidden = features[..., -self.head.config.hidden_size :].flatten(0, 1)[index]
        chains = [chain.flatten()[index] for chain in begun]
        next_tokens = tokens.roll(-1, 1).flatten()[index]
        return Batch(self.teacher.embed(tokens), features, position, index, chains, hidden, next_tokens)

    def features(self, rows: Rows) -> Tensor:
        """[R, T, (aux + 1) H] of rows, by the compiled layers where they are as many as these were compiled for."""
        run_layer = self.run_layer if len(rows) == self.batch_rows else layer_output
        return self.teacher.features(rows.tokens.long(), rows.position, run_layer)

    def losses(self, batch: Batch) -> Tensor:
        """[steps]: cross entropy, in nats, with the target's distribution over the draft tokens."""
        with torch.no_grad():
            wanted = linear(batch.hidden, self.target_rows).float().softmax(-1)
        if self.settings.compile:
            for tensor in (batch.index, wanted, *batch.chains):
                torch._dynamo.mark_dynamic(tensor, 0)  # N, of every batch another
        with self._autocast():
            outputs = self.unroll(batch.embeddings, batch.features, batch.position, self.settings.steps)
            return torch.stack([
                self.step_loss(x, batch.index, self.head.norm, self.rows, wanted, chain)
                for x, chain in zip(outputs, batch.chains, strict=True)
            ])  # fmt: skip

    @property
    def rows(self) -> Tensor:
        """[D, H]: the LM head that drafts are read with."""
        return self.target_rows if self.head.lm_head is None else self.head.lm_head.weight

    def logits(self, batch: Batch) -> list[Tensor]:
        """Per draft step, [N, D] over the draft tokens; never compiled, as batches that are measured differ in size."""
        with self._autocast():
            steps = self.head.unroll(batch.embeddings, batch.features, batch.position, self.settings.steps)
            return [step_logits(x, batch.index, self.head.norm, self.rows) for x in steps]

    def prepare(self, rows: Rows) -> list[Batch]:
        """The batches of rows that are measured again and again."""
        return [self.batch(rows.part(slice(i, i + self.batch_rows))) for i in range(0, len(rows), self.batch_rows)]

    @torch.no_grad()
    def measure(self, batches: list[Batch]) -> dict[str, Any]:
        """What of some texts would be accepted, every position being drafted from.

        agreement: per draft step, how often the likeliest draft token is the target's likeliest token, given the text
        before it. acceptance: per draft step, how often it and all steps before it are the tokens of the text.
        tokens_per_step: 1 plus the sum of acceptance, the length of what a step yields when every draft is ``steps``
        long (only of greedy texts: a sampled text is not what greedy drafts are compared with).
        """
        self.head.eval()
        steps = self.settings.steps
        agreed, run, count = (torch.zeros(steps, dtype=torch.float64) for _ in range(3))
        for batch in batches:
            target = self.teacher.logits(batch.hidden).argmax(-1)
            going = torch.ones_like(batch.position, dtype=torch.bool)
            for step, (logits, chain) in enumerate(zip(self.logits(batch), batch.chains, strict=True)):
                draft = self.token_map[logits.argmax(-1)]
                agreed[step] += ((draft == target) & chain).sum().cpu()
                hit = torch.zeros_like(going)
                hit.view(-1)[batch.index] = (draft == batch.next) & chain
                going = hit & (back(going[..., None], 1)[..., 0] if step else going)
                run[step] += going.sum().cpu()
                count[step] += chain.sum().cpu()
        share = (run / count.clamp(min=1)).tolist()
        return {
            "agreement": [round(x, 4) for x in (agreed / count.clamp(min=1)).tolist()],
            "acceptance": [round(x, 4) for x in share],
            "tokens_per_step": round(1 + sum(share), 3),
            "positions": int(count[0]),
        }

    def _features(self, rows: Rows) -> Tensor:
        """[R, T, (aux + 1) H] of all rows."""
        found, said = [], time.monotonic()
        for i in range(0, len(rows), self.batch_rows):
            part = rows.part(slice(i, i + self.batch_rows))
            found.append(self.features(part))
            if time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                self.say(f"train: the target has read {i + len(part.tokens)} of {len(rows)} rows")
        return torch.cat(found)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda", torch.bfloat16, enabled=self.settings.device == "cuda")


def step_logits(x: Tensor, index: Tensor, norm: RMSNorm, rows: Tensor) -> Tensor:
    """[N, D]: of a draft step's outputs x: [B, T, H] at the flat positions index: [N], read with rows: [D, H]."""
    return linear(norm(x.flatten(0, 1)[index]), rows)


def step_loss(x: Tensor, index: Tensor, norm: RMSNorm, rows: Tensor, wanted: Tensor, chain: Tensor) -> Tensor:
    """A draft step's mean cross entropy with wanted: [N, D], where chain: [N] is True. The rest: see step_logits."""
    logits = step_logits(x, index, norm, rows).float()
    entropy = logits.logsumexp(-1) - (wanted * logits).sum(-1)
    return (entropy * chain).sum() / chain.sum().clamp(min=1)


def new_head(teacher: Teacher, token_map: Tensor, settings: TrainSettings, target: str) -> DraftHead:
    """A head that begins as the target's last layers, reading the final hidden state through and little else."""
    shape, hidden = vars(teacher.shape), teacher.config.hidden_size
    if settings.layers > teacher.config.num_layers:
        raise ConfigError(f"the target has {teacher.config.num_layers} layers to begin with, not {settings.layers}")
    head = DraftHead(HeadConfig(
        **shape, num_hidden_layers=settings.layers, aux_layers=teacher.aux_layers, draft_vocab_size=len(token_map),
        vocab_size=teacher.config.vocab_size, max_position_embeddings=teacher.config.max_position_embeddings,
        target=target, own_head=settings.own_head,
    ))  # fmt: skip
    with torch.no_grad():
        for weight in (head.fc.weight, head.input.weight):
            weight.normal_(std=0.3 * weight.shape[1] ** -0.5)
            weight[:, -hidden:] += torch.eye(hidden)
        for mine, theirs in zip(head.layers, teacher.layers[-settings.layers :], strict=True):
            mine.load_state_dict({name: value.float() for name, value in theirs.state_dict().items()})
        head.norm.load_state_dict({"weight": teacher.norm.weight.float()})
        if head.lm_head is not None:
            head.lm_head.weight.copy_(teacher.lm_head[token_map])
    return head


def _aux_layers(settings: TrainSettings, folder: Path) -> tuple[int, ...]:
    if settings.aux_layers is None:
        count = json.loads((folder / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
        return tuple(sorted({count // 3, 2 * count // 3}))
    try:
        return tuple(int(word) for word in settings.aux_layers.split(","))
    except ValueError as error:
        raise ConfigError(f"aux_layers must be numbers like 10,20, got {settings.aux_layers!r}") from error


def _cosine(share: float, warmup: float) -> float:
    """1 until ``warmup``, then half a cosine down to 5 %."""
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, share - warmup) / (1 - warmup))))
