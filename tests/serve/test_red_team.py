"""What attacks found: features that met and disagreed, and single requests for which all others had to wait."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_server import Brake, LiveServer, wait_until
from test_disconnect import send

from minillm_serve.config import EngineConfig
from minillm_serve.model.tokenizer import LONG_TEXT_CHARS, Tokenizer
from minillm_serve.params import RequestError
from minillm_serve.serve.http.body import MAX_BRACKETS, MAX_FIELDS, parse_object

BODY = {"model": "tiny", "prompt": "Hello", "max_tokens": 100, "temperature": 0, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir: Path) -> Tokenizer:
    return Tokenizer.from_folder(tiny_model_dir)


@pytest.fixture(scope="module")
def for_two(tiny_model_dir: Path) -> Iterator[LiveServer]:
    """A queue for two sequences."""
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=256, max_num_seqs=8, num_threads=1)
    with LiveServer(config, max_num_queued_reqs=2) as server:
        yield server


def turns_taken_during(work: Callable[[], object]) -> int:
    """How often another thread could run Python code while ``work`` did."""
    turns, ended = 0, threading.Event()

    def run() -> None:
        nonlocal turns
        while not ended.is_set():
            turns += 1

    other = threading.Thread(target=run)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        other.start()
        wait_until(lambda: turns > 0)
        before = turns
        work()
        return turns - before
    finally:
        ended.set()
        other.join()
        sys.setswitchinterval(usual)


def test_a_long_text_is_tokenised_while_other_threads_go_on(tokenizer: Tokenizer):
    """The event loop is such a thread: one client's megabytes must not stop everybody's streams."""
    turns = turns_taken_during(lambda: tokenizer.encode("a1 " * 200_000))
    assert turns > 50_000  # some hundreds while the GIL is held, some millions otherwise


@pytest.mark.parametrize("piece", ["a", " ", "a1 ", "ñandú\n", "🦄", "e\u0301", "\0", "<|im_end|>", "\n\n  "])
@pytest.mark.parametrize("chars", [LONG_TEXT_CHARS - 1, LONG_TEXT_CHARS, LONG_TEXT_CHARS + 1, 3 * LONG_TEXT_CHARS])
def test_a_long_text_has_the_tokens_of_a_short_one(tokenizer: Tokenizer, piece: str, chars: int):
    text = (piece * chars)[:chars]
    assert tokenizer.encode_prompt(text) == tokenizer.backend.encode(text, add_special_tokens=True).ids
    assert tokenizer.encode(text) == tokenizer.backend.encode(text, add_special_tokens=False).ids


def test_a_lone_surrogate_is_refused_in_texts_of_any_length(tokenizer: Tokenizer):
    for chars in (1, 2 * LONG_TEXT_CHARS):
        with pytest.raises(RequestError, match="surrogate"):
            tokenizer.encode("a" * chars + "\ud800")


def test_a_request_that_names_itself_takes_one_place_in_the_queue(for_two: LiveServer):
    """Its caller is replaced once its body has told the name: it must not be counted under both."""
    queue = for_two.app.state.limits.queue
    with Brake(for_two, steps=0) as brake:
        named = send(for_two, BODY | {"request_id": "mine"})
        wait_until(lambda: queue.sequences == 1)
        assert queue.preparing == 0
        other = send(for_two, BODY)
        wait_until(lambda: queue.sequences == 2)
        assert for_two.post("/v1/completions", BODY).status_code == 503
        brake.allow(10)
        named.close()
        other.close()
    wait_until(for_two.idle)
    wait_until(lambda: (queue.sequences, queue.preparing) == (0, 0))


def test_large_answers_say_what_small_ones_do(server: LiveServer):
    """Answers with log-probabilities are written in another thread, choice by choice."""
    plain = {"model": "tiny", "prompt": ["Hello", "ñ 🦄"], "max_tokens": 5, "n": 2, "temperature": 1, "seed": 5}
    small = server.post("/v1/completions", plain)
    large = server.post("/v1/completions", plain | {"logprobs": 3, "echo": True})
    assert large.headers["content-type"] == small.headers["content-type"] == "application/json"
    for one, other in zip(small.json()["choices"], large.json()["choices"], strict=True):
        assert one.keys() == other.keys()
        assert plain["prompt"][one["index"] // 2] + one["text"] == other["text"]
    assert small.json().keys() == large.json().keys() and list(small.json()) == list(large.json())
    assert small.json()["usage"] == large.json()["usage"]


def test_a_body_of_many_small_things_is_refused_before_it_is_built():
    """Four megabytes of them would hold the GIL for seconds; as many characters in one string cost nothing."""
    for many, what in (
        (b"[" + b"[]," * MAX_BRACKETS + b"0]", "brackets"),
        (b"[" + b"{}," * MAX_BRACKETS + b"0]", "brackets"),
        (b'{"' + b'":0,"'.join(b"%d" % number for number in range(MAX_FIELDS)) + b'":0}', "fields"),
    ):
        with pytest.raises(RequestError, match=what):
            parse_object(b'{"prompt":"Hello","more":' + many + b"}" if what == "brackets" else many[:-1] + b',"a":1}')
    assert len(parse_object(b'{"prompt":"' + b"a" * 2**22 + b'"}')["prompt"]) == 2**22
