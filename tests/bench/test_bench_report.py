"""The report is one well-formed file that needs nothing else, and shows failures as loudly as successes."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from bench_samples import sample_result, sample_trace
from rich.console import Console

from minillm_serve.bench import gantt
from minillm_serve.bench.report import build_report
from minillm_serve.bench.summary import print_summary

VOID = {"meta", "circle", "rect", "line", "path", "br"}
KEYS = (
    "baseline_tok_s",
    "baseline_batch_tok_s",
    "minillm_tok_s",
    "ratio",
    "ratio_batch",
    "json_total",
    "json_valid",
    "greedy_equal",
    "greedy_total",
    "environment",
)


class Outline(HTMLParser):
    """Collects what the tests ask about; raises on a tag that closes what is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.sections.append(str(values["id"]))
        if "id" in values:
            self.ids.append(str(values["id"]))
        self.links += [str(values[name]) for name in ("href", "src") if name in values]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(html: str) -> Outline:
    parser = Outline()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture
def trace() -> gantt.Trace:
    return gantt.select(sample_trace(), ["a", "b"])


def test_the_page_is_well_formed_and_has_every_section(trace: gantt.Trace) -> None:
    page = outline(build_report(sample_result(), trace, trace))
    assert page.sections == ["throughput", "latency", "scheduler", "json", "equality", "answers", "method"]
    assert {"h1", "h2", "svg", "table", "main"} <= page.tags
    assert len(page.ids) == len(set(page.ids))


def test_the_page_is_self_contained(trace: gantt.Trace) -> None:
    html = build_report(sample_result(), trace, trace)
    page = outline(html)
    assert page.links == []
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert "@import" not in html and "url(" not in html
    assert set(re.findall(r"https?://[^\"' <]+", html)) <= {"http://www.w3.org/2000/svg"}


def test_what_the_model_wrote_is_text_never_markup(trace: gantt.Trace) -> None:
    html = build_report(sample_result(text="<script>alert(1)</script>"), trace, trace)
    assert "script" not in outline(html).tags
    assert "&lt;script&gt;alert(1)" in html
    assert "Tiny random &lt;weights&gt;" in html


def test_figures_of_the_page_are_those_of_the_result(trace: gantt.Trace) -> None:
    figures = sample_result()
    html = build_report(figures, trace, trace)
    assert f"{figures['minillm_tok_s']:.0f} tok/s" in html
    assert "5 of 5" in html and "2 of 2" in html
    assert "0.0004" in html, "a tie is shown with its gap"
    assert "Wrong tokens: none." in html


def test_a_disturbed_run_says_so_on_the_page_and_in_the_terminal(trace: gantt.Trace, tmp_path: Path) -> None:
    calm = sample_result()
    busy = calm | {"others_cpu": calm["others_cpu"] | {"padded_batch": 0.5}}
    assert "Other programs were busy" in build_report(busy, trace, trace)
    assert "Other programs were busy" not in build_report(calm, trace, trace)
    console = Console(record=True, width=130, file=(tmp_path / "out").open("w", encoding="utf-8"))
    print_summary(busy, tmp_path, console)
    assert "Other programs were busy" in console.export_text()


def test_an_invalid_answer_is_shown_with_its_reason(trace: gantt.Trace) -> None:
    html = build_report(sample_result(valid=False), trace, trace)
    assert "4 of 5" in html
    assert "is a required property" in html


def test_the_result_has_the_keys_that_others_read_and_survives_json() -> None:
    figures = sample_result()
    assert [key for key in KEYS if key not in figures] == []
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_the_terminal_table_says_what_was_missed(tmp_path: Path) -> None:
    console = Console(record=True, width=130, file=(tmp_path / "out").open("w", encoding="utf-8"))
    print_summary(sample_result(valid=False), tmp_path, console)
    text = console.export_text()
    assert "4 of 5" in text
    assert "Throughput target missed" in text
    assert "invalid JSON (person)" in text
    assert "demo.html" in text
