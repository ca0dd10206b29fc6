"""The conversion: the folder computes what the GGUF's weights compute, and tokenises as the model was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_gguf import SPECIAL, tensor_shapes, write_tiny_gguf

from minillm_serve.model.gguf_checkpoint import unpermute_rotary
from minillm_serve.model.gguf_convert import convert_gguf
from minillm_serve.model.store import ModelStoreError, resolve_model

STRINGS = [
    "The capital of France is", "¿Cuál es la capital de España? pingüino, ñandú",
    "emoji 🙂🚀👩‍👩‍👧", "1234567890, 3.14, 2026-11-21",
    "   many    spaces\n\n\n\ttabs\t\t x", "def f(x):\n    return x**2\n", "日本語 العربية",
    "", "don't we'll I'm", "\r\n\u00a0\u200b",
    '{"a": [1, 22, null]}', "<|im_start|>user\nhi<|im_end|>",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: bytes) -> Path:
    place = tmp_path_factory.mktemp("converted")
    (place / "tiny.gguf").write_bytes(tiny_gguf)
    (place / "model").mkdir()
    convert_gguf(place / "tiny.gguf", place / "model", {"name": "tiny"}, lambda _: None)
    return place / "model"


def test_logits_equal_those_of_transformers_with_the_original_weights(folder, tiny_weights):
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    names = tensor_shapes()
    original = transformers.AutoModelForCausalLM.from_config(model.config).float()
    loaded = original.load_state_dict(
        {hf: torch.from_numpy(tiny_weights[gguf]) for gguf, (hf, _) in names.items() if "ffn_down" not in gguf},
        strict=False,
    )
    assert loaded.unexpected_keys == []
    converted = model.state_dict()
    for layer in range(2):  # Q4_1 in the file: near the original, and everything else must then agree exactly
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        quantised = tiny_weights[f"blk.{layer}.ffn_down.weight"]
        assert np.abs(converted[name].numpy() - quantised).max() < 0.15
        original.state_dict()[name].copy_(converted[name])
    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, original(ids).logits, rtol=0, atol=1e-5)


def test_rotary_rows_are_restored_for_every_head():
    from tiny_gguf import permute_rotary

    weight = np.arange(9 * 64 * 3, dtype=np.float32).reshape(9 * 64, 3)
    assert np.array_equal(unpermute_rotary(permute_rotary(weight, 9), 9), weight)
    assert not np.array_equal(permute_rotary(weight, 9), weight)


def test_the_folder_is_a_plain_hugging_face_model(folder):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.bos_token) == ("<|im_end|>", "<|im_start|>")
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "the 12"}], return_dict=True)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[0] == "<|im_start|>"
    assert tokenizer.decode(ids) == "<|im_start|>user\nthe 12<|im_end|>\n"
    assert resolve_model(str(folder)) == folder


def test_special_tokens_are_single_ids_and_skipped_when_decoding(folder):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode("<|im_end|> the").tokens == ["<|im_end|>", "Ġthe"]
    assert [tokenizer.token_to_id(token) for token in SPECIAL] == [0, 1, 2]
    assert tokenizer.decode(tokenizer.encode("<|im_start|>a the<|im_end|>").ids) == "a the"


def test_digits_stand_alone_and_every_string_survives_the_round_trip(folder):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode("the 12½").tokens[-5:] == ["Ġ", "1", "2", "Â", "½"]
    for text in STRINGS:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architecture": "phi3"}, "architecture 'phi3' is not supported"),
        ({"pre": "tekken"}, "tokenizer gpt2/tekken is not supported"),
        ({"drop": "blk.1.ffn_up.weight"}, r"no tensor for model\.layers\.1\.mlp\.up_proj"),
    ],
)
def test_what_would_be_converted_wrongly_is_refused(tmp_path, tiny_weights, changes, sentence):
    write_tiny_gguf(tmp_path / "odd.gguf", tiny_weights, **changes)
    with pytest.raises(ModelStoreError, match=sentence):
        convert_gguf(tmp_path / "odd.gguf", tmp_path, {"name": "odd"}, lambda _: None)


def test_a_misshapen_tensor_is_refused(tmp_path, tiny_weights):
    odd = {**tiny_weights, "blk.0.attn_norm.weight": tiny_weights["blk.0.attn_norm.weight"][:-1]}
    write_tiny_gguf(tmp_path / "odd.gguf", odd)
    with pytest.raises(ModelStoreError, match=r"blk\.0\.attn_norm\.weight has shape \[71\], expected \[72\]"):
        convert_gguf(tmp_path / "odd.gguf", tmp_path, {"name": "odd"}, lambda _: None)


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "no.gguf").write_bytes(b"hello, this is not a model file")
    with pytest.raises(ModelStoreError, match="not a readable GGUF file"):
        convert_gguf(tmp_path / "no.gguf", tmp_path, {"name": "no"}, lambda _: None)


@pytest.mark.model
def test_the_real_model_tokenises_as_transformers_reads_it():
    """Digits split off as in training; transformers' own GGUF reader does not do so beyond 0-9, hence the folder."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer

    folder = resolve_model("smollm2-135m")
    ours = Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert ours.get_vocab_size() == len(theirs) == 49152
    for text in STRINGS:
        ids = ours.encode(text).ids
        assert ids == theirs(text)["input_ids"]
        assert ours.decode(ids, skip_special_tokens=False) == text
    assert ours.encode("1234 año").tokens == ["1", "2", "3", "4", "Ġa", "Ã±o"]
