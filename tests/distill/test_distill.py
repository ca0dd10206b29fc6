"""Training a draft head: what it learns from is the target's, what it learns is what a runtime will compute."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_model import EOS_TOKEN_ID, build_tiny_model
from torch.nn.functional import linear, rms_norm, silu, softmax

from minillm_serve.bench.copy_prompts import COPY_PROMPTS
from minillm_serve.bench.prompts import PROMPTS
from minillm_serve.config import ConfigError
from minillm_serve.distill import asks
from minillm_serve.distill.card import write_card
from minillm_serve.distill.command import main
from minillm_serve.distill.data import DataSettings, Texts, read, user_header, write
from minillm_serve.distill.model import DraftHead, HeadConfig
from minillm_serve.distill.packing import pack
from minillm_serve.distill.teacher import Teacher
from minillm_serve.distill.train import TrainSettings, new_head, train
from minillm_serve.distill.vocabulary import frequent_tokens
from minillm_serve.engine.llm import LLM

STEPS = 4
DATA = DataSettings(num_tokens=3000, max_new=24, max_prompt=12, round_size=48, held_out=0.2, max_num_seqs=32)


@pytest.fixture(scope="module")
def texts_dir(tiny_model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    with LLM(tiny_model_dir, max_num_seqs=32) as llm:
        write(llm, folder, DATA, say=lambda text: None)
    return folder


def settings(model, **changes) -> TrainSettings:
    given = {"epochs": 3.0, "batch_tokens": 512, "width": 128, "draft_vocab_size": 300, "steps": STEPS, "lr": 3e-3}
    return TrainSettings(model=str(model), **(given | changes))


@pytest.fixture(scope="module")
def trained(tiny_model_dir, texts_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    result = train(texts_dir, folder, settings(tiny_model_dir), say=lambda text: None)
    return folder, result


@pytest.fixture(scope="module")
def teacher(tiny_model_dir) -> Teacher:
    return Teacher(tiny_model_dir, (0, 1), "cpu", torch.float32)


def random_head(teacher: Teacher, layers: int) -> DraftHead:
    """A head of odd weights, so that no part of it is close to doing nothing."""
    torch.manual_seed(5)
    config = HeadConfig(
        **vars(teacher.shape), num_hidden_layers=layers, aux_layers=teacher.aux_layers, draft_vocab_size=40,
        vocab_size=512, max_position_embeddings=1024, target="tiny",
    )  # fmt: skip
    head = DraftHead(config)
    for parameter in head.parameters():
        parameter.data = torch.randn_like(parameter) * (0.3 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5)
    return head


# -- the target ------------------------------------------------------------------------------------------------------


def test_the_teacher_is_the_target(tiny_model_dir, teacher):
    """Its features and logits are those of transformers: the stream entering each layer, the final state normed."""
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    tokens = torch.randint(0, 512, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(tokens, output_hidden_states=True)
    features = teacher.features(tokens, torch.arange(20).repeat(2, 1))
    torch.testing.assert_close(features, torch.cat(expected.hidden_states, -1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(teacher.logits(features), expected.logits, atol=1e-3, rtol=1e-4)


def test_a_text_in_a_packed_row_does_not_see_its_neighbours(teacher):
    """Features and drafts of a text are the same alone and behind another text, however long that one is."""
    lengths = np.array([7, 12, 9])
    rng = np.random.default_rng(0)
    texts = Texts(rng.integers(3, 512, 28, np.uint16), lengths, np.array([3, 4, 2]), lengths > 0, lengths > 99)
    packed, head = pack(texts, np.arange(3), 32), random_head(teacher, 1)
    assert packed.tokens.shape == (1, 32)
    assert packed.answer.sum() == 28 - 9

    def drafts(rows):
        tokens = rows.tokens.long()
        outputs = head.unroll(teacher.embed(tokens), teacher.features(tokens, rows.position), rows.position, 3)
        return torch.stack(outputs)

    together, start = drafts(packed), 0
    for number, length in enumerate(lengths):
        alone = drafts(pack(texts, np.array([number]), int(length)))
        for step in range(3):
            a, b = together[step, 0, start + step : start + length], alone[step, 0, step:length]
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        start += length


def test_a_target_that_the_teacher_would_get_wrong_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="biases"):
        Teacher(build_tiny_model(tmp_path / "biased", attention_bias=True), (0,), "cpu", torch.float32)
    with pytest.raises(ConfigError, match="ascending layers from 0 to 1"):
        Teacher(build_tiny_model(tmp_path / "plain"), (0, 2), "cpu", torch.float32)


# -- the head: the naive loop below is the specification of the runtime ----------------------------------------------


class NaiveHead:
    """One position at a time, from the tensors by name: a cache of rotated keys and values that grows by appending."""

    def __init__(self, weights, config):
        self.w, self.c = weights, config
        self.caches = [([], []) for _ in range(config.num_hidden_layers)]

    def norm(self, x, name):
        return rms_norm(x, x.shape, self.w[f"{name}.weight"], self.c.rms_norm_eps)

    def turned(self, x, position):
        half = self.c.head_dim // 2
        angle = position * self.c.rope_theta ** (-torch.arange(half) / half)
        a, b = x[:, :half], x[:, half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], 1)

    def forward(self, embedding, g, position):
        """The output [H] at ``position``, whose keys and values are appended. g: [H]."""
        x = torch.cat([self.norm(embedding, "embed_norm"), self.norm(g, "feature_norm")])
        x = self.w["input.weight"] @ x
        group = self.c.num_attention_heads // self.c.num_key_value_heads
        for i, (keys, values) in enumerate(self.caches):
            w = {name: self.w[f"layers.{i}.self_attn.{name}_proj.weight"] for name in "qkvo"}
            y = self.norm(x, f"layers.{i}.input_layernorm")
            q, k, v = ((w[name] @ y).view(-1, self.c.head_dim) for name in "qkv")
            keys.append(self.turned(k, position))
            values.append(v)
            q, k, v = self.turned(q, position), torch.stack(keys), torch.stack(values)
            mixed = [
                softmax(k[:, h // group] @ q[h] * self.c.head_dim**-0.5, 0) @ v[:, h // group] for h in range(len(q))
            ]
            x = x + w["o"] @ torch.cat(mixed)
            y = self.norm(x, f"layers.{i}.post_attention_layernorm")
            gate, up, down = (self.w[f"layers.{i}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
            x = x + down @ (silu(gate @ y) * (up @ y))
        return x

    def draft(self, embeddings, features, start, steps):
        """Outputs [steps, H] of a chain: the target's features are known before ``start``, the tokens beyond it."""
        for keys, values in self.caches:
            keys.clear(), values.clear()
        zero = torch.zeros(self.c.hidden_size)
        for position in range(start + 1):
            g = self.w["fc.weight"] @ features[position - 1] if position else zero
            out = self.forward(embeddings[position], g, position)
        outputs = [out]
        for position in range(start + 1, start + steps):
            outputs.append(self.forward(embeddings[position], outputs[-1], position))
        return torch.stack(outputs)


@pytest.mark.parametrize("layers", [1, 2])
def test_unrolled_training_is_drafting_step_by_step(teacher, layers):
    """Every chain of every start, drafted one position at a time, ends where the unrolled pass says."""
    head, length = random_head(teacher, layers), 11
    tokens = torch.randint(0, 512, (1, length), generator=torch.Generator().manual_seed(2))
    position = torch.arange(length)[None]
    embeddings, features = teacher.embed(tokens), teacher.features(tokens, position)
    with torch.no_grad():
        unrolled = torch.stack(head.unroll(embeddings, features, position, STEPS))[:, 0]
        naive = NaiveHead(head.state_dict(), head.config)
        for start in range(length - STEPS + 1):
            chain = naive.draft(embeddings[0], features[0], start, STEPS)
            expected = torch.stack([unrolled[step, start + step] for step in range(STEPS)])
            torch.testing.assert_close(chain, expected, atol=1e-4, rtol=1e-4)


def test_the_draft_vocabulary_is_ranked_by_frequency_and_holds_what_ends_a_text(teacher):
    tokens = np.array([9, 9, 9, 7, 7, 7, 7, 5, 5, 0], np.uint16)
    texts = Texts(tokens, np.array([10]), np.array([1]), np.array([True]), np.array([False]))
    ids = frequent_tokens(texts, np.array([0]), 4, teacher.config, {0, 1})
    assert ids.tolist() == [7, 5, 0, EOS_TOKEN_ID]  # of 5 and 9, twice each, the lower; 0 occurs, EOS need not
    assert 1 not in ids  # a control token that no answer holds


# -- the text --------------------------------------------------------------------------------------------------------


def test_texts_are_the_targets_own_greedy_answers(tiny_model_dir, texts_dir):
    """A stored greedy text is its prompt, then what the engine answers to it; what is stored is what is counted."""
    texts, made = read(texts_dir)
    assert len(texts.tokens) == made["tokens"] == texts.lengths.sum() >= DATA.num_tokens
    assert 0.4 < texts.greedy.mean() < 0.8
    assert 0.05 < texts.held_out.mean() < 0.4
    starts = np.cumsum(texts.lengths) - texts.lengths
    chosen = np.flatnonzero(texts.greedy)[:4]
    rows = [texts.tokens[starts[i] : starts[i] + texts.lengths[i]].tolist() for i in chosen]
    prompts = [row[: texts.prompts[i]] for row, i in zip(rows, chosen, strict=True)]
    with LLM(tiny_model_dir) as llm:
        params = llm.get_default_sampling_params().__class__(temperature=0.0, max_tokens=DATA.max_new)
        for row, output in zip(rows, llm.generate(prompts, params), strict=True):
            assert row == [*output.prompt_token_ids, *output.outputs[0].token_ids]


def test_prompts_that_the_engine_is_measured_with_are_known_in_any_spelling():
    assert all(asks.is_reserved(prompt) and asks.is_reserved(f"  {prompt.upper()} !") for prompt in PROMPTS)
    assert all(asks.is_reserved(prompt.text) for prompt in COPY_PROMPTS)
    assert asks.is_reserved("What is the capital city of France?")
    assert not asks.is_reserved("What is the capital of Italy?")
    rng = random.Random(0)
    asked = [asks.ask(rng) for _ in range(500)]
    assert not any("{" in text for text in asked)
    assert len(set(asked)) > 450


def test_the_users_header_is_what_the_template_writes_before_the_user(tiny_model_dir):
    with LLM(tiny_model_dir) as llm:
        header = user_header(llm.tokenizer)
        whole = llm.tokenizer.apply_chat_template([{"role": "user", "content": "zebra"}])
        assert whole[: len(header)] == header
        assert llm.tokenizer.backend.decode(header, skip_special_tokens=False).endswith("<|im_start|>user\n")


# -- training --------------------------------------------------------------------------------------------------------


def test_loss_falls_and_the_file_holds_exactly_the_heads_tensors(trained):
    folder, result = trained
    first, last = result["curve"][0]["loss"], result["curve"][-1]["loss"]
    assert all(b < a for a, b in zip(first, last, strict=True))
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    hidden, layer = config["hidden_size"], "layers.0."
    assert {name: list(t.shape) for name, t in tensors.items()} == {
        "fc.weight": [hidden, 3 * hidden],
        "embed_norm.weight": [hidden], "feature_norm.weight": [hidden], "norm.weight": [hidden],
        "input.weight": [hidden, 2 * hidden], "token_map": [300],
        f"{layer}input_layernorm.weight": [hidden], f"{layer}post_attention_layernorm.weight": [hidden],
        f"{layer}self_attn.q_proj.weight": [64, 64], f"{layer}self_attn.k_proj.weight": [32, 64],
        f"{layer}self_attn.v_proj.weight": [32, 64], f"{layer}self_attn.o_proj.weight": [64, 64],
        f"{layer}mlp.gate_proj.weight": [96, 64], f"{layer}mlp.up_proj.weight": [96, 64],
        f"{layer}mlp.down_proj.weight": [64, 96],
    }  # fmt: skip
    assert {t.dtype for name, t in tensors.items() if name != "token_map"} == {torch.bfloat16}
    assert tensors["token_map"].dtype == torch.int32
    assert EOS_TOKEN_ID in tensors["token_map"]
    assert set(config) == {
        "architectures", "method", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "intermediate_size", "rms_norm_eps", "rope_theta", "aux_layers", "draft_vocab_size", "vocab_size",
        "max_position_embeddings", "torch_dtype", "target",
    }  # fmt: skip


def test_same_seed_same_weights(tiny_model_dir, texts_dir, tmp_path):
    """Bit for bit, where no time limit cuts it; another seed gives others."""
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        given = settings(tiny_model_dir, epochs=0.3, seed=seed, own_head=True)
        train(texts_dir, tmp_path / name, given, say=lambda text: None)
        files.append((tmp_path / name / "model.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]
    assert load_file(tmp_path / "a" / "model.safetensors")["lm_head.weight"].shape == (300, 64)


def test_what_is_measured_is_what_a_drafting_loop_accepts(tiny_model_dir, texts_dir, tmp_path):
    """Acceptance on the held-out greedy texts, counted chain by chain with the saved head."""
    result = train(texts_dir, tmp_path, settings(tiny_model_dir, epochs=0.5, steps=3), say=lambda text: None)
    weights = {name: t.float() for name, t in load_file(tmp_path / "model.safetensors").items()}
    config = json.loads((tmp_path / "config.json").read_text())
    names = HeadConfig.__dataclass_fields__
    head = NaiveHead(weights, HeadConfig(**{key: value for key, value in config.items() if key in names}))
    teacher = Teacher(tiny_model_dir, tuple(config["aux_layers"]), "cpu", torch.float32)
    token_map, rows = weights["token_map"].long(), teacher.lm_head[weights["token_map"].long()]
    texts, _ = read(texts_dir)
    starts, hits, count = np.cumsum(texts.lengths) - texts.lengths, np.zeros(3), np.zeros(3)
    for i in np.flatnonzero(texts.held_out & texts.greedy):
        tokens = torch.from_numpy(texts.tokens[starts[i] : starts[i] + texts.lengths[i]].astype(np.int64))
        length = min(128, len(tokens))
        embeddings = teacher.embed(tokens)
        features = teacher.features(tokens[None], torch.arange(len(tokens))[None])[0]
        for start in range(int(texts.prompts[i]), length - 1):
            steps = min(3, length - 1 - start)
            going = True
            for step, out in enumerate(head.draft(embeddings, features, start, steps)):
                draft = token_map[linear(head.norm(out, "norm"), rows).argmax()]
                going = going and bool(draft == tokens[start + step + 1])
                hits[step] += going
                count[step] += 1
    measured = result["held_out"]["greedy"]
    assert measured["positions"] == count[0]
    assert np.allclose(measured["acceptance"], hits / count, atol=0.02)  # bfloat16 on disk may turn a close choice


def test_the_card_shows_the_figures_of_the_training(trained):
    pytest.importorskip("matplotlib")
    folder, result = trained
    card = write_card(folder).read_text()
    for share in result["held_out"]["greedy"]["acceptance"]:
        assert f"{share:.1%}" in card
    assert f"{result['data']['tokens']:,}" in card
    assert (folder / "training.png").stat().st_size > 1000
    with pytest.raises(ConfigError, match="train the head first"):
        write_card(folder / "none")


def test_a_new_head_begins_as_the_targets_last_layer(teacher, tiny_model_dir):
    head = new_head(teacher, torch.arange(40), settings(tiny_model_dir), "tiny")
    last = teacher.layers[-1].state_dict()
    assert all(torch.equal(value, last[name]) for name, value in head.layers[0].state_dict().items())


def test_refusals_say_what_to_do(tiny_model_dir, tmp_path, texts_dir, capsys):
    with pytest.raises(ConfigError, match="make it with the command"):
        read(tmp_path)
    with LLM(tiny_model_dir) as llm, pytest.raises(ConfigError, match="another --out"):
        write(llm, texts_dir, DATA)
    other = build_tiny_model(tmp_path / "other")
    assert main(["train", "--data", str(texts_dir), "--out", str(tmp_path / "h"), "--model", str(other)]) == 2
    assert "make it write its own" in capsys.readouterr().err
    for wrong in ({"steps": 0}, {"lr": 0.0}, {"warmup": 1.0}, {"batch_tokens": 100}):
        with pytest.raises(ConfigError):
            settings(tiny_model_dir, **wrong)
