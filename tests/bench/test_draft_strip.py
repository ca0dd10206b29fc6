"""The accept/reject strip and the Gantt chart of a run with drafts: every draft is drawn once, as what it was."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bench_samples import sample_trace, step

from minillm_serve import LLM, SamplingParams, cli
from minillm_serve.bench import gantt, svg
from minillm_serve.bench.draft_strip import DraftedStep, draft_strip, draft_table, render_draft_strip
from minillm_serve.engine.trace import TraceError

SVG = "{http://www.w3.org/2000/svg}"


def drafted_trace() -> dict:
    """Request 0 verifies two drafts (one stands), then three (all stand, two tokens forced); request 1 has none."""
    trace = sample_trace()
    trace["steps"] = [
        step(1, 10.0, 0.1, {"0": 6, "1": 3}) | {"tokens": {"0": [50], "1": [60]}, "proposed": {"0": [51, 99]}},
        step(2, 10.1, 0.1, {"0": 3, "1": 1}, drafts={"0": [51, 99]})
        | {"tokens": {"0": [51, 52], "1": [61]}, "accepted": {"0": 1}},
        step(3, 10.2, 0.1, {"0": 1, "1": 1}) | {"tokens": {"0": [53], "1": [62]}},
        step(4, 10.3, 0.1, {"0": 4, "1": 1}, drafts={"0": [54, 55, 56]})
        | {"tokens": {"0": [54, 55, 56, 57, 58, 59], "1": [63]}, "accepted": {"0": 3}, "forced": {"0": 2}},
    ]
    return trace


def test_every_step_of_a_request_with_drafts_says_where_and_what():
    assert draft_strip(drafted_trace()) == {
        "0": [
            DraftedStep(1, 6, (), 0, 1),
            DraftedStep(2, 7, (51, 99), 1, 1),
            DraftedStep(3, 9, (), 0, 1),
            DraftedStep(4, 10, (54, 55, 56), 3, 3),
        ]
    }


def test_a_cell_a_draft_and_a_cell_a_drawn_token():
    root = ElementTree.fromstring(render_draft_strip(drafted_trace()))
    columns = [group for group in root.iter(f"{SVG}g") if group.find(f"{SVG}title") is not None]
    colors = [Counter(cell.get("fill") for cell in column.iter(f"{SVG}rect")) for column in columns]
    green, blue, red = svg.GREEN, svg.BLUE, svg.VERMILLION
    assert colors == [{blue: 1}, {green: 1, blue: 1, red: 1}, {blue: 1}, {green: 3, blue: 3}]
    assert columns[1].findtext(f"{SVG}title") == "step 2, from position 7: 1 of 2 drafts accepted"
    width, height = (float(value) for value in root.get("viewBox", "").split()[2:])
    for cell in root.iter(f"{SVG}rect"):
        if cell.get("x") is not None:
            x, y, w, h = (float(cell.get(name, "nan")) for name in ("x", "y", "width", "height"))
            assert x >= 0 and y >= 0 and x + w <= width and y + h <= height


def test_the_table_has_the_totals():
    table = ElementTree.fromstring(draft_table(drafted_trace())).find("table")
    head, row = [[cell.text for cell in line] for line in table.iter("tr")]
    assert dict(zip(head, row, strict=True)) == {
        "request": "0", "steps": "4", "drafts": "5", "accepted": "4", "rejected": "1", "acceptance rate": "80%",
        "tokens a step": "2.50",
    }  # fmt: skip


def test_without_drafts_there_is_no_strip():
    assert draft_strip(sample_trace()) == {}
    with pytest.raises(TraceError, match="verified a draft"):
        render_draft_strip(sample_trace())


def test_drafts_that_fell_are_no_recomputation():
    """The place of a rejected draft is computed again by the next step: as a decode, since it was never the text's."""
    bars = [bar for bar in gantt.bars(drafted_trace()) if bar.request == "0"]
    assert [(bar.kind, bar.tokens) for bar in bars] == [("prefill", 6), ("decode", 3), ("decode", 1), ("decode", 4)]


@pytest.fixture(scope="module")
def trace(tiny_model_dir: Path) -> dict:
    """A pool too small for all, and drafts of which some stand."""
    config = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1, "dynamic": False,
              "rejection_sample_method": "synthetic", "synthetic_acceptance_rates": [0.7, 0.5, 0.3]}  # fmt: skip
    settings = {"num_threads": 1, "num_kv_blocks": 14, "block_size": 4, "max_model_len": 64}
    llm = LLM(tiny_model_dir, trace_file="unused", speculative_config=config, **settings)
    llm.generate([[n] * n for n in (8, 10, 12)], SamplingParams(temperature=0, max_tokens=16, ignore_eos=True))
    return json.loads(json.dumps(llm.core.trace.content()))


def test_the_strip_of_a_real_run_adds_up(trace: dict):
    rows = draft_strip(trace)
    assert any(request["preemptions"] for request in trace["requests"].values())
    for rid, row in rows.items():
        request = trace["requests"][rid]
        assert sum(entry.accepted + entry.drawn for entry in row) == request["generated"]
        assert [entry.first for entry in row] == sorted({entry.first for entry in row})
        assert all(0 <= entry.accepted <= len(entry.drafts) and entry.drawn == 1 for entry in row)
    entries = [entry for row in rows.values() for entry in row]
    assert sum(len(entry.drafts) for entry in entries) > sum(entry.accepted for entry in entries) > 0


def test_a_run_with_drafts_is_drawn_and_described(trace: dict, tmp_path: Path, capsys: pytest.CaptureFixture):
    file = tmp_path / "trace.json"
    file.write_text(json.dumps(trace), encoding="utf-8")
    assert cli.main(["trace", "replay", str(file)]) == 0
    assert "drafts verified" in capsys.readouterr().out
    assert cli.main(["trace", "draw", str(file), "--out", str(tmp_path / "out.html")]) == 0
    drawn = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert drawn.count("<svg") == 4 and "What became of the drafts" in drawn
    for rid, request in trace["requests"].items():
        kinds = {bar.kind for bar in gantt.bars(trace) if bar.request == rid}
        assert ("recompute" in kinds) <= bool(request["preemptions"])
