"""The Gantt chart draws every scheduled step once, and says the same to those who cannot see it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bench_samples import sample_trace
from hypothesis import given
from hypothesis import strategies as st

from minillm_serve.bench import gantt, svg
from minillm_serve.bench.plots import Throughput, throughput_bars, ttft_distribution

SVG = "{http://www.w3.org/2000/svg}"


def test_steps_are_told_apart_by_counting_tokens() -> None:
    kinds = [(bar.request, bar.step, bar.kind, bar.tokens) for bar in gantt.bars(sample_trace())]
    assert kinds == [
        ("1", 0, "prefill", 3),
        ("1", 1, "decode", 1),
        ("0", 1, "prefill", 3),
        ("0", 2, "prefill", 3),
        ("0", 3, "decode", 1),
        ("0", 4, "decode", 1),
        ("1", 4, "recompute", 5),
        ("1", 5, "decode", 1),
    ]


def test_a_bar_per_scheduled_step_is_drawn() -> None:
    trace = sample_trace()
    root = ElementTree.fromstring(gantt.render_gantt(trace))
    rows = [group for group in root.iter(f"{SVG}g") if "generated" in group.findtext(f"{SVG}title", "")]
    scheduled = {rid: sum(rid in s["num_tokens"] for s in trace["steps"]) for rid in trace["requests"]}
    assert sorted(len(row.findall(f"{SVG}rect")) for row in rows) == sorted(scheduled.values())


def test_the_chart_is_an_image_with_title_and_description() -> None:
    root = ElementTree.fromstring(gantt.render_gantt(sample_trace(), "A & B"))
    assert root.get("role") == "img"
    labels = {element.get("id"): element.text for element in root if element.tag in (f"{SVG}title", f"{SVG}desc")}
    assert sorted(labels) == sorted(root.get("aria-labelledby", "").split())
    assert "A & B" in labels.values()
    assert any("2 requests over 6 steps" in str(text) for text in labels.values())


def test_two_figures_on_one_page_do_not_share_ids() -> None:
    first, second = (ElementTree.fromstring(gantt.render_gantt(sample_trace())) for _ in range(2))
    assert first.get("aria-labelledby") != second.get("aria-labelledby")


def test_bars_stay_inside_the_drawing() -> None:
    root = ElementTree.fromstring(gantt.render_gantt(sample_trace(), width=600))
    width, height = (float(v) for v in root.get("viewBox", "").split()[2:])
    for bar in root.iter(f"{SVG}rect"):
        if bar.get("x") is None:
            continue
        x, y, w, h = (float(bar.get(name, "nan")) for name in ("x", "y", "width", "height"))
        assert x >= 0 and x + w <= width and y >= 0 and y + h <= height and w > 0 and h > 0


def test_the_table_has_a_row_per_request_with_the_chart_s_counts() -> None:
    table = ElementTree.fromstring(gantt.gantt_table(gantt.select(sample_trace(), ["a", "b"])))
    head = [cell.text for cell in table.iter("th")]
    rows = [dict(zip(head, (cell.text for cell in row), strict=True)) for row in table.find("tbody")]
    assert [row["prefill steps"] for row in rows] == ["2", "1"]
    assert [row["decode steps"] for row in rows] == ["2", "2"]
    assert [row["recompute steps"] for row in rows] == ["0", "1"]
    assert rows[1]["first token (s)"] == "0.100"


def test_select_keeps_only_the_named_requests_and_starts_the_clock_at_their_arrival() -> None:
    chosen = gantt.select(sample_trace(), ["chatcmpl-a"])
    assert list(chosen["requests"]) == ["0"]
    assert chosen["requests"]["0"]["arrival"] == 0
    assert chosen["requests"]["0"]["first_token"] == pytest.approx(0.4)
    assert [s["step"] for s in chosen["steps"]] == [1, 2, 3, 4]
    assert all(list(s["num_tokens"]) == ["0"] and s["preempted"] == [] for s in chosen["steps"])
    assert list(gantt.select(sample_trace(), ["a"])["requests"]) == ["0"]


def test_select_leaves_the_trace_as_it_was() -> None:
    trace = sample_trace()
    gantt.select(trace, ["a"])
    assert trace == sample_trace()


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        ({}, "not an engine trace"),
        ({"schema": "minillm-trace/1"}, "no longer read"),
        ({"schema": "minillm-trace/2", "requests": {}, "steps": []}, "empty"),
    ],
)
def test_what_is_no_trace_is_refused(trace: dict, message: str) -> None:
    with pytest.raises(gantt.TraceError, match=message):
        gantt.render_gantt(trace)


def test_an_unknown_request_is_named() -> None:
    with pytest.raises(gantt.TraceError, match="'nobody'"):
        gantt.select(sample_trace(), ["a", "nobody"])


def test_requests_without_an_entry_get_no_bars() -> None:
    trace = sample_trace()
    del trace["requests"]["1"]
    assert {bar.request for bar in gantt.bars(trace)} == {"0"}


def test_the_trace_of_the_real_engine_adds_up(tiny_model_dir: Path, tmp_path: Path) -> None:
    """With a pool too small for all: each prompt is computed or found, and every generated token has its step."""
    from minillm_serve import LLM, SamplingParams

    trace_file = tmp_path / "trace.json"
    llm = LLM(tiny_model_dir, num_threads=1, trace_file=trace_file, num_kv_blocks=12, block_size=8, max_model_len=80)
    prompts = [list(range(5, 5 + 11 * n)) for n in (1, 2, 3, 2)]
    llm.generate(prompts, SamplingParams(max_tokens=20, temperature=0, ignore_eos=True))
    llm.close()
    trace = json.loads(trace_file.read_text(encoding="utf-8"))
    drawn = gantt.bars(trace)
    assert len(drawn) == sum(len(step["num_tokens"]) for step in trace["steps"])
    assert any(request["preemptions"] for request in trace["requests"].values())
    assert any(bar.cached for bar in drawn)
    for rid, request in trace["requests"].items():
        own = [bar for bar in drawn if bar.request == rid]
        prefill = sum(bar.tokens for bar in own if bar.kind == "prefill")
        assert prefill + own[0].cached >= request["prompt_tokens"]
        if not request["preemptions"]:
            assert sum(bar.kind == "decode" for bar in own) == request["generated"] - 1
    ElementTree.fromstring(gantt.render_gantt(trace))


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_ticks_are_round_few_and_inside_the_axis(high: float) -> None:
    marks = svg.ticks(high)
    assert marks[0] == 0
    assert marks[-1] <= high * (1 + 1e-6)
    assert 2 <= len(marks) <= 7
    assert high <= svg.nice_ceiling(high) * (1 + 1e-9) <= 1.11 * high


def test_throughput_bars_are_proportional_and_labelled() -> None:
    rows = [Throughput("slow", 10.0, 9.0, 11.0, svg.BLUE), Throughput("fast & good", 40.0, 40.0, 40.0, svg.GREEN)]
    root = ElementTree.fromstring(throughput_bars(rows))
    widths = [float(r.get("width", "0")) for r in root.iter(f"{SVG}rect") if r.get("fill") in (svg.BLUE, svg.GREEN)]
    assert widths[1] == pytest.approx(4 * widths[0], rel=1e-3)
    assert {"slow", "fast & good", "10.0", "40.0"} <= {t.text for t in root.iter(f"{SVG}text")}


def test_the_ttft_plot_names_its_percentiles() -> None:
    root = ElementTree.fromstring(ttft_distribution([0.1, 0.2, 0.3, 0.4, 2.5]))
    texts = [t.text for t in root.iter(f"{SVG}text")]
    assert "p50 300 ms" in texts
    assert "p95 2.08 s" in texts
    with pytest.raises(ValueError, match="no requests"):
        ttft_distribution([])


def _luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", [svg.BLUE, svg.VERMILLION, svg.GREEN, svg.PURPLE])
def test_bars_stand_out_on_white(color: str) -> None:
    assert 1.05 / (_luminance(color) + 0.05) >= 3
