"""Engines in processes of their own: named, started, obeyed, and quoted when they fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minillm_serve.compare.backend import KINDS, Backend, BackendError, WorkerProcess, parse_backend, parse_backends
from minillm_serve.compare.weights import model_size
from minillm_serve.config import ConfigError

FAKE_ENGINE = """
import os, sys, time
sys.path.insert(0, {workers!r})
import worker

class Fake:
    info = {{"version": "1"}}
    def answer(self, prompts, max_tokens):
        print("a library writes to stdout")
        if prompts[0][0] == 1: os._exit(7)
        if prompts[0][0] == 2: raise RuntimeError("out of blocks")
        if prompts[0][0] == 3: max_tokens -= 1
        if prompts[0][0] == 4: time.sleep(60)
        return [worker.Answer(max_tokens, [9] * max_tokens, [0.1] * max_tokens) for _ in prompts]
    def reset(self): pass

sys.modules["on_fake"] = type(sys)("on_fake")
sys.modules["on_fake"].load = lambda command: Fake()
sys.argv = ["worker.py", "fake"]
print("about to start", file=sys.stderr)
worker.main()
"""


@pytest.fixture
def fake_command(tmp_path: Path) -> list[str]:
    import minillm_serve.compare.workers as workers

    script = tmp_path / "fake.py"
    script.write_text(FAKE_ENGINE.format(workers=str(Path(workers.__file__).parent)), encoding="utf-8")
    return [sys.executable, str(script)]


def test_names_are_parsed_with_their_default_dtype() -> None:
    assert parse_backend("minillm") == Backend("minillm", "float32")
    assert parse_backend("minillm:int8").label == "minillm:int8"
    assert parse_backend("vllm:bf16").dtype == "bfloat16"
    assert parse_backend("llamacpp").label == "llamacpp"
    assert [b.kind for b in parse_backends("minillm:fp32, minillm:int8,vllm")] == ["minillm", "minillm", "vllm"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("oracle", "unknown backend 'oracle'; known: minillm, transformers"),
        ("vllm:int8", "vllm runs in fp32, bf16, not in 'int8'"),
        ("llamacpp:fp32", "llamacpp runs in gguf"),
        ("", "expected a list of different backends"),
        ("minillm,minillm:fp32", "expected a list of different backends"),
    ],
)
def test_names_that_cannot_run_are_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_backends(text)


def test_every_kind_has_its_worker() -> None:
    from minillm_serve.compare.backend import WORKER

    assert WORKER.is_file()
    for kind in KINDS.values():
        assert (WORKER.parent / f"on_{kind.worker}.py").is_file()


def test_a_worker_answers_whatever_its_engine_prints(fake_command: list[str]) -> None:
    with WorkerProcess("fake", fake_command, timeout_s=60) as worker:
        assert worker.load(model="m")["info"] == {"version": "1"}
        result = worker.run([[5], [6]], 3)
        assert [answer["token_ids"] for answer in result["answers"]] == [[9] * 3] * 2
        assert result["seconds"] >= 0 and (result["peak_mb"] is None or result["peak_mb"] > 1)


def test_an_error_is_told_and_the_engine_goes_on(fake_command: list[str]) -> None:
    with WorkerProcess("fake", fake_command, timeout_s=60) as worker:
        with pytest.raises(BackendError, match="fake: RuntimeError: nothing is loaded"):
            worker.run([[5]], 1)
        worker.load(model="m")
        with pytest.raises(BackendError, match="fake: RuntimeError: out of blocks"):
            worker.run([[2]], 1)
        assert worker.run([[5]], 1)["answers"][0]["count"] == 1


def test_answers_of_another_length_are_no_figure(fake_command: list[str]) -> None:
    with WorkerProcess("fake", fake_command, timeout_s=60) as worker:
        worker.load(model="m")
        with pytest.raises(BackendError, match="8 tokens were asked for each, it gave 7"):
            worker.run([[3]], 8)


def test_a_worker_that_dies_is_quoted(fake_command: list[str]) -> None:
    with WorkerProcess("fake", fake_command, timeout_s=60) as worker:
        worker.load(model="m")
        with pytest.raises(BackendError, match=r"fake ended with code 7:\n(.|\n)*about to start"):
            worker.run([[1]], 1)


def test_a_worker_that_hangs_is_given_up_and_ended(fake_command: list[str]) -> None:
    with WorkerProcess("fake", fake_command, timeout_s=60) as worker:
        worker.load(model="m")
        worker._timeout_s = 0.2
        with pytest.raises(BackendError, match="no answer within"):
            worker.run([[4]], 1)
    assert worker._process.poll() is not None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="a process's state is read from /proc")
def test_a_paused_worker_stands_still_and_wakes_for_the_next_command(fake_command: list[str]) -> None:
    with WorkerProcess("fake", fake_command, timeout_s=60) as worker:
        worker.load(model="m")
        worker.pause()
        stat = Path(f"/proc/{worker.pid}/stat")
        deadline = time.monotonic() + 30
        while (state := stat.read_text().rpartition(")")[2].split()[0]) != "T" and time.monotonic() < deadline:
            pass
        assert state == "T"
        assert worker.run([[5]], 1)["answers"][0]["count"] == 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="a process's state is read from /proc")
def test_a_paused_worker_does_not_outlive_a_killed_parent(fake_command: list[str], tmp_path: Path) -> None:
    parent = tmp_path / "parent.py"
    parent.write_text(
        "import os, signal\n"
        "from minillm_serve.compare.backend import WorkerProcess\n"
        f"worker = WorkerProcess('fake', {fake_command!r}, 60).__enter__()\n"
        "worker.load(model='m')\n"
        "worker.pause()\n"
        "os.waitid(os.P_PID, worker.pid, os.WSTOPPED | os.WNOWAIT)\n"
        "print(worker.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
        encoding="utf-8",
    )
    # The parent must be in a group other than its worker's and have a parent in its session, as under any shell.
    done = subprocess.run([sys.executable, str(parent)], capture_output=True, text=True, timeout=120)
    stat = Path(f"/proc/{int(done.stdout)}/stat")
    deadline = time.monotonic() + 30
    while alive(stat) and time.monotonic() < deadline:
        pass
    assert not alive(stat)


def alive(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_size_of_a_model_is_read_from_its_headers(tiny_model_dir: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    size = model_size(tiny_model_dir)
    weights = load_file(tiny_model_dir / "model.safetensors")
    assert size.parameters == sum(w.numel() for w in weights.values())
    assert size.parameters - size.streamed == weights["model.embed_tokens.weight"].numel()
    assert size.step_bytes("int8") * 4 == size.step_bytes("float32")
    with pytest.raises(ConfigError, match=r"holds no \.safetensors file"):
        model_size(tmp_path)
    (tmp_path / "odd.safetensors").write_bytes(b"\xff" * 16)
    with pytest.raises(ConfigError, match="is not a safetensors file"):
        model_size(tmp_path)


class TestWorkersWithFakeEngines:
    """The adapters of engines that live in other environments, driven by stand-ins with the same interface."""

    @pytest.fixture(autouse=True)
    def workers_on_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from minillm_serve.compare.backend import WORKER

        monkeypatch.syspath_prepend(str(WORKER.parent))
        for name in ("worker", "on_vllm", "on_llamacpp"):
            monkeypatch.delitem(sys.modules, name, raising=False)

    def test_llamacpp_counts_by_usage_and_opens_a_slot_for_each_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = []

        class Params:
            def __init__(self) -> None:
                self.model, self.cpuparams, self.cpuparams_batch = (type("P", (), {})() for _ in range(3))
                self.cache_ram_mib = 8192

        class Server:
            def __init__(self, params: Params) -> None:
                made.append(params)

            def handle_completions(self, body: dict, receive) -> None:
                assert body["ignore_eos"] and body["temperature"] == 0 and body["cache_prompt"] is False
                if body["prompt"] == [13]:
                    receive({"error": {"message": "no room"}})
                    return
                for text in ("a", "b"):
                    receive({"choices": [{"text": text}]})
                receive({"choices": [{"text": ""}], "usage": {"completion_tokens": body["n_predict"]}})

        fake = type(sys)("xllamacpp")
        fake.CommonParams, fake.Server, fake.get_system_info = Params, Server, lambda: " AVX2 "
        monkeypatch.setitem(sys.modules, "xllamacpp", fake)
        import on_llamacpp

        command = {"gguf": "m.gguf", "slots": 4, "max_len": 300, "threads": 2, "settings": {}}
        engine = on_llamacpp.load(command)
        assert (made[0].n_parallel, made[0].n_ctx, made[0].cpuparams.n_threads) == (4, 4 * 512, 2)
        answers = engine.answer([[1], [2]], 3)
        assert [answer.count for answer in answers] == [3, 3] and len(answers[0].times) == 2
        with pytest.raises(RuntimeError, match="no room"):
            engine.answer([[13]], 3)
        with pytest.raises(ValueError, match="no setting 'colour'"):
            on_llamacpp.load(command | {"settings": {"colour": 1}})

    def test_vllm_is_stepped_and_every_token_gets_its_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Output:
            def __init__(self, name: str, count: int, finished: bool) -> None:
                self.request_id, self.finished = name, finished
                self.outputs = [type("O", (), {"token_ids": list(range(count))})()]

        class Core:
            def __init__(self) -> None:
                self.waiting: dict[str, int] = {}

            def add_request(self, name: str, prompt: dict, params: dict) -> None:
                assert prompt == {"prompt_token_ids": [5]} and params["ignore_eos"]
                self.waiting[name] = 0

            def has_unfinished_requests(self) -> bool:
                return bool(self.waiting)

            def step(self) -> list[Output]:
                self.waiting = {name: count + 1 for name, count in self.waiting.items()}
                outputs = [Output(name, count, count == 3) for name, count in self.waiting.items()]
                self.waiting = {name: count for name, count in self.waiting.items() if count < 3}
                return outputs

        class LLM:
            def __init__(self, model: str, **settings: object) -> None:
                assert settings["dtype"] == "float32" and settings["enforce_eager"]
                self.llm_engine = Core()

            def reset_prefix_cache(self) -> bool:
                return False

        fake = type(sys)("vllm")
        fake.LLM, fake.SamplingParams, fake.__version__ = LLM, dict, "0.0"
        monkeypatch.setitem(sys.modules, "vllm", fake)
        monkeypatch.setattr(os, "environ", dict(os.environ))
        import on_vllm

        engine = on_vllm.load({"model": "m", "dtype": "float32", "threads": 1, "settings": {}})
        answers = engine.answer([[5], [5]], 3)
        assert [answer.token_ids for answer in answers] == [[0, 1, 2]] * 2
        assert all(len(answer.times) == 3 and answer.times == sorted(answer.times) for answer in answers)
        with pytest.raises(RuntimeError, match="did not reset"):
            engine.reset()
        with pytest.raises(ValueError, match="may use"):
            on_vllm.cores(4096)


def run_worker(name: str, folder: Path, dtype: str = "float32", **command: object) -> dict:
    backend = Backend(name, dtype)
    prompts = json.loads(json.dumps([[1, 40, 41, 42], [1, 50, 51]]))
    with WorkerProcess.of(backend, timeout_s=300) as worker:
        loaded = worker.load(
            model=str(folder),
            dtype=dtype,
            mode=backend.spec.mode,
            threads=1,
            slots=2,
            max_len=16,
            settings={},
            gguf=None,
            **command,
        )
        assert loaded["info"]["version"]
        worker.reset()
        return worker.run(prompts, 5)


def test_this_engine_and_continuous_batching_of_transformers_give_the_same_tokens(tiny_model_dir: Path) -> None:
    pytest.importorskip("transformers", reason="compares with transformers")
    ours, theirs = (run_worker(name, tiny_model_dir) for name in ("minillm", "transformers-cb"))
    assert [a["token_ids"] for a in ours["answers"]] == [a["token_ids"] for a in theirs["answers"]]
    for answer in ours["answers"] + theirs["answers"]:
        assert len(answer["times"]) == 5 and answer["times"] == sorted(answer["times"])
