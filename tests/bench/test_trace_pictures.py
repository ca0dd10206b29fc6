"""Pictures and commands of a trace: the pool is drawn as the replay finds it, and no model is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from minillm_serve import LLM, SamplingParams, cli
from minillm_serve.bench.block_table import block_states, render_block_table, render_pool_history
from minillm_serve.engine.replay import replay
from minillm_serve.engine.trace import TraceError

SVG = "{http://www.w3.org/2000/svg}"
SHARED = list(range(30, 51))


@pytest.fixture(scope="module")
def trace(tiny_model_dir) -> dict:
    """Four requests with a common prefix of 21 tokens in a pool that is too small for all, then one that comes late."""
    with LLM(tiny_model_dir, num_threads=1, block_size=4, num_kv_blocks=20, max_model_len=64, trace_file="-") as llm:
        params = SamplingParams(temperature=0, max_tokens=14, ignore_eos=True)
        llm.generate([SHARED + [90 + n] * (4 * n + 1) for n in range(4)], params)
        llm.generate([[*SHARED, 7]], params)
        content = json.loads(json.dumps(llm.core.trace.content()))
        llm._trace_file = None
    return content


def titles(drawing: str) -> list[str]:
    return [
        title.text or "" for g in ElementTree.fromstring(drawing).iter(f"{SVG}g") for title in g.iter(f"{SVG}title")
    ]


def test_every_block_is_owned_idle_or_free_and_never_two_of_them(trace):
    for step in replay(trace):
        states = block_states(step, trace["num_blocks"], trace["config"]["block_size"])
        assert [state.block for state in states] == list(range(trace["num_blocks"]))
        for state in states:
            assert not (state.idle and state.owners)
            assert set(state.owners) == {rid for rid, table in step.tables.items() if state.block in table}
            assert 0 <= state.tokens <= trace["config"]["block_size"]
            assert state.tokens or not state.idle
        held, filled = step.usage(trace["config"]["block_size"])
        assert filled == sum(state.tokens for state in states if state.owners)
        assert held == sum(trace["config"]["block_size"] for state in states if state.owners)


def test_the_block_table_draws_every_block_of_the_pool_and_every_table_entry(trace):
    for step in replay(trace):
        drawn = titles(render_block_table(trace, step.plan.step))
        entries = sum(map(len, step.tables.values()))
        assert len(drawn) == trace["num_blocks"] + entries
    assert any("requests 0, 1" in title for title in titles(render_block_table(trace)))


def test_the_fullest_step_is_drawn_unless_another_is_named(trace):
    held = {step.plan.step: len({b for table in step.tables.values() for b in table}) for step in replay(trace)}
    text = " ".join(ElementTree.fromstring(render_block_table(trace)).itertext())
    assert f"hold {max(held.values())} of {trace['num_blocks']} blocks" in text
    with pytest.raises(TraceError, match="there is no step 999: the trace has steps 1 to"):
        render_block_table(trace, 999)


def test_the_history_covers_each_held_block_and_step_once(trace):
    steps = list(replay(trace))
    cells = 0
    for title in titles(render_pool_history(trace)):
        _, _, span = title.partition(", steps ")
        first, _, rest = span.partition(" to ")
        cells += int(rest.split(":")[0]) - int(first) + 1
    expected = sum(len({b for t in step.tables.values() for b in t}) + len(step.idle) for step in steps)
    assert cells == expected


@pytest.mark.parametrize("render", [render_block_table, render_pool_history])
def test_nothing_is_drawn_outside_the_picture(trace, render):
    root = ElementTree.fromstring(render(trace))
    width, height = (float(value) for value in root.get("viewBox", "").split()[2:])
    for box in root.iter(f"{SVG}rect"):
        if box.get("x") is not None:
            x, y, w, h = (float(box.get(name, "nan")) for name in ("x", "y", "width", "height"))
            assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
    for text in root.iter(f"{SVG}text"):
        assert 0 <= float(text.get("x", "nan")) <= width and 0 <= float(text.get("y", "nan")) <= height


@pytest.fixture
def trace_file(trace, tmp_path) -> Path:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(trace), encoding="utf-8")
    return path


def test_replay_draw_and_anonymise(trace, trace_file, tmp_path, capsys):
    assert cli.main(["trace", "replay", str(trace_file)]) == 0
    printed = capsys.readouterr().out
    assert f"{len(trace['steps'])} steps replayed" in printed and "from the cache" in printed and "preempted" in printed
    assert cli.main(["trace", "draw", str(trace_file), "--out", str(tmp_path / "out.html")]) == 0
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3 and "prefix hit" in page
    hidden = tmp_path / "hidden.json"
    assert cli.main(["trace", "anonymise", str(trace_file), "--out", str(hidden)]) == 0
    assert cli.main(["trace", "replay", str(hidden), "--quiet"]) == 0


def test_a_changed_trace_or_no_trace_is_one_sentence_and_status_1(trace, trace_file, capsys):
    changed = json.loads(trace_file.read_text(encoding="utf-8"))
    changed["steps"][2]["num_tokens"] = {"0": 5}
    trace_file.write_text(json.dumps(changed), encoding="utf-8")
    assert cli.main(["trace", "replay", str(trace_file), "--quiet"]) == 1
    assert "minillm trace: step 3: num_tokens was" in capsys.readouterr().err
    trace_file.write_text("{}", encoding="utf-8")
    assert cli.main(["trace", "draw", str(trace_file), "--out", "unused.html"]) == 1
    assert "not an engine trace" in capsys.readouterr().err


def test_the_command_needs_no_torch(trace_file, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from minillm_serve import cli\n"
        f"sys.exit(cli.main(['trace', 'draw', {str(trace_file)!r}, '--out', {str(tmp_path / 'o.html')!r}]))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
