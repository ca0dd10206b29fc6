"""Compiled constraints: shared, bounded, compiled once and away from the step loop."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading

import pytest
from nested_text import FIXED, FIXED_TEXT, NESTED, compiled

from minillm_serve import EngineConfig, RequestError, SamplingParams, StructuredOutputsParams
from minillm_serve.engine import async_engine
from minillm_serve.engine.async_engine import AsyncEngine, EngineBusyError, EngineDeadError
from minillm_serve.engine.grammars import GrammarCache


class FakeGrammar:
    def __init__(self, size: int):
        self.size = size

    def nbytes(self) -> int:
        return self.size


def choice(number: int) -> StructuredOutputsParams:
    return StructuredOutputsParams(choice=[str(number)])


def cache(size: int, **settings) -> tuple[GrammarCache, list[str]]:
    seen: list[str] = []

    def compiler(constraint, tokenizer, *, vocab_size):
        seen.append(constraint.choice[0])
        return FakeGrammar(size)

    return GrammarCache(None, 512, compiler=compiler, **settings), seen


def test_the_longest_unused_goes_first_and_memory_is_bounded():
    grammars, seen = cache(size=100, max_bytes=350)
    for number in (1, 2, 3, 1, 4):  # 2 is then the longest unused
        grammars.get(choice(number))
        gc.collect()
    assert seen == ["1", "2", "3", "4"]
    assert [grammars.find(choice(number)) is not None for number in (1, 2, 3, 4)] == [True, False, True, True]


def test_one_that_alone_is_too_much_serves_its_request_all_the_same():
    grammars, seen = cache(size=1000, max_bytes=10)
    kept = grammars.get(choice(1))
    assert grammars.get(choice(1)) is kept and seen == ["1"]


def test_a_grammar_lives_as_long_as_somebody_holds_it():
    grammars, seen = cache(size=100, max_bytes=100)
    held = grammars.get(choice(1))
    grammars.get(choice(2))
    assert grammars.get(choice(1)) is held and seen == ["1", "2"], "its request was admitted with it"
    del held
    grammars.get(choice(2))
    gc.collect()
    assert grammars.find(choice(1)) is None


def test_growing_masks_count_when_the_next_grammar_comes():
    grammars, _ = cache(size=100, max_bytes=1000)
    grammars.get(choice(1)).size = 950
    gc.collect()
    grammars.get(choice(2))
    gc.collect()
    assert grammars.find(choice(1)) is None and grammars.find(choice(2)) is not None


def test_spelling_options_make_another_grammar_and_the_promise_to_close_does_not():
    base = StructuredOutputsParams(json={"type": "object"})
    for other in ({"whitespace": "compact"}, {"max_whitespace": 3}, {"any_order": True}, {"lenient": True}):
        assert StructuredOutputsParams(json={"type": "object"}, **other).key() != base.key()
    assert StructuredOutputsParams(json={"type": "object"}, always_closes=True).key() == base.key()
    assert StructuredOutputsParams(json={"b": 1, "a": 2}).key() != StructuredOutputsParams(json={"a": 2, "b": 1}).key()
    assert StructuredOutputsParams(regex="a").key() != StructuredOutputsParams(grammar="a").key()


def test_a_refusal_names_the_field_and_leaves_nothing_behind():
    def refuse(constraint, tokenizer, *, vocab_size):
        raise RequestError("no", "structured_outputs.json")

    grammars = GrammarCache(None, 512, compiler=refuse)
    interval = sys.getswitchinterval()
    for _ in range(2):
        with pytest.raises(RequestError) as caught:
            grammars.get(StructuredOutputsParams(regex="("))
        assert caught.value.param == "structured_outputs.regex"
    assert sys.getswitchinterval() == interval and grammars.find(StructuredOutputsParams(regex="(")) is None


def test_many_threads_that_want_the_same_compile_it_once():
    started, go_on, seen = threading.Event(), threading.Event(), []

    def compiler(constraint, tokenizer, *, vocab_size):
        seen.append(constraint)
        started.set()
        assert go_on.wait(30)
        return FakeGrammar(1)

    grammars, got = GrammarCache(None, 512, compiler=compiler), []
    threads = [threading.Thread(target=lambda: got.append(grammars.get(choice(1)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert started.wait(30)
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert len(seen) == 1 and len(got) == 8 and len(set(map(id, got))) == 1


class SlowCompiler:
    """Compiles ``NESTED`` only when told to."""

    def __init__(self) -> None:
        self.started, self.go_on = threading.Event(), threading.Event()

    def __call__(self, constraint, tokenizer, *, vocab_size):
        if constraint == NESTED:
            self.started.set()
            assert self.go_on.wait(60)
        return compiled(constraint, tokenizer, vocab_size=vocab_size)


async def collected(engine: AsyncEngine, params: SamplingParams):
    async for output in engine.generate("hi", params, "a"):
        last = output
    return last.outputs[0]


def run(engine: AsyncEngine, work):
    async def main():
        await engine.start()
        try:
            return await asyncio.wait_for(work(), 120)
        finally:
            await engine.stop()

    return asyncio.run(main())


@pytest.fixture
def slow(tiny_model_dir):
    engine, compiler = (
        AsyncEngine.from_config(EngineConfig(model=str(tiny_model_dir), num_kv_blocks=200)),
        SlowCompiler(),
    )
    engine.core.admission.grammars._compile = compiler
    yield engine, compiler
    compiler.go_on.set()


def test_others_are_served_while_a_constraint_compiles(slow):
    engine, compiler = slow
    plain = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)

    async def work():
        waiting = asyncio.create_task(collected(engine, SamplingParams(max_tokens=60, structured_outputs=NESTED)))
        await asyncio.to_thread(compiler.started.wait, 30)
        assert engine.core.admission.grammars.find(FIXED) is None
        others = await asyncio.gather(*(collected(engine, plain) for _ in range(3)))
        assert not waiting.done() and engine.stats().running == 0
        known = engine.core.admission.grammars
        known.put(FIXED, compiled(FIXED, engine.tokenizer, vocab_size=512))
        guided = await collected(engine, SamplingParams(max_tokens=200, structured_outputs=FIXED))
        compiler.go_on.set()
        return others, guided, await waiting

    others, guided, late = run(engine, work)
    assert [len(sample.token_ids) for sample in others] == [40] * 3
    assert guided.text == FIXED_TEXT and late.text.startswith('{"name": "')


def test_too_many_that_wait_to_be_compiled_are_turned_away(slow, monkeypatch):
    engine, compiler = slow
    monkeypatch.setattr(async_engine, "MAX_COMPILING", 2)
    asked = SamplingParams(max_tokens=60, structured_outputs=NESTED)

    async def work():
        waiting = [asyncio.create_task(collected(engine, asked)) for _ in range(2)]
        await asyncio.to_thread(compiler.started.wait, 30)
        with pytest.raises(EngineBusyError):
            await engine.prepare("hi", asked)
        waiting[1].cancel()
        await asyncio.gather(waiting[1], return_exceptions=True)
        third = asyncio.create_task(collected(engine, asked))
        compiler.go_on.set()
        return await asyncio.gather(waiting[0], third)

    first, third = run(engine, work)
    assert first.text.startswith('{"name": "') and third.text.startswith('{"name": "')


def test_an_engine_that_has_stopped_compiles_nothing(tiny_model_dir):
    engine = AsyncEngine.from_config(EngineConfig(model=str(tiny_model_dir), num_kv_blocks=64))

    async def main():
        await engine.start()
        await engine.stop()
        with pytest.raises(EngineDeadError):
            await engine.prepare("hi", SamplingParams(structured_outputs=NESTED))

    asyncio.run(main())
