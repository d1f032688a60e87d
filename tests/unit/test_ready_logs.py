"""Phases and diagnoses from logs, and the checks of answers."""

from __future__ import annotations

import re
from pathlib import Path

from ready_logs import (
    OLLAMA_LOADED,
    OLLAMA_OLD_DRIVER,
    VLLM_FULL_START,
    VLLM_MEMORY_NOT_FREE,
    VLLM_WAITING,
    vllm_failure,
)

from stoker.engine.registry import NAMES
from stoker.ready.diagnosis import UNKNOWN, catalogue
from stoker.ready.engines import engine_diagnosis
from stoker.ready.logtext import last_lines, log_lines
from stoker.ready.ollama_log import ollama_progress
from stoker.ready.phase import Phase, Progress
from stoker.ready.vllm_log import vllm_progress

PACKAGE = Path(__file__).parents[2] / "stoker" / "ready"
TROUBLESHOOTING = Path(__file__).parents[2] / "docs" / "troubleshooting.md"


def test_lines_lose_colour_process_and_logger() -> None:
    lines = log_lines(
        "\x1b[36m(EngineCore pid=231)\x1b[0;0m WARNING 04-18 10:11:02 [gptq.py:94] a warning\r\n"
        "(APIServer pid=1) INFO:     Application startup complete.\n\n"
        'time=2026-08-16T00:44:13.439+12:00 level=WARN source=a.go:8 msg="x y"\n'
    )
    assert [(line.level, line.text) for line in lines] == [
        ("WARNING", "a warning"),
        ("INFO", "Application startup complete."),
        ("WARNING", 'msg="x y"'),
    ]


def test_a_line_that_follows_an_unfinished_bar_is_a_line_of_its_own() -> None:
    log = (
        "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):   0%|          | 0/51 [00:00<?, ?it/s]"
        "(EngineCore pid=191) ERROR 04-04 09:17:58 [core.py:1108] EngineCore failed to start.\n(EngineCore pid=191) \n"
    )
    lines = log_lines(log)
    assert [line.level for line in lines] == ["", "ERROR"]
    assert lines[1].text == "EngineCore failed to start."


def test_carriage_returns_end_lines_and_last_lines_are_short() -> None:
    assert [line.text for line in log_lines("\r 10%\r 50%\r100%\nnext")] == [" 10%", " 50%", "100%", "next"]
    assert last_lines("a\n" + "b" * 300 + "\n", count=1, width=20) == ("b" * 19 + "…",)


def phases(log: str) -> list[Progress]:
    """Each progress that a growing vLLM log shows."""
    seen: list[Progress] = []
    text = ""
    for part in re.split(r"(?<=[\r\n])", log):
        text += part
        progress = vllm_progress(text)
        if progress and (not seen or seen[-1] != progress):
            seen.append(progress)
    return seen


def test_vllm_phases_come_in_order_with_their_shares() -> None:
    seen = phases(VLLM_FULL_START)
    assert [one.phase for one in seen] == sorted(one.phase for one in seen)
    assert {one.phase for one in seen} == set(range(Phase.STARTING, Phase.SERVING + 1))
    assert [one.percent for one in seen if one.detail.endswith("files")] == [0.0, 50.0, 100.0]
    assert Progress(Phase.CAPTURING, "4 of 7", 100 * 4 / 7) in seen
    assert seen[-1].phase is Phase.SERVING


def test_vllm_warm_compile_and_newer_combined_cache_line() -> None:
    warm = "(EngineCore pid=2) INFO 04-18 10:11:33 [backends.py:1] Directly load the compiled graph(s) for compile range (1, 2048) from the cache, took 1.1 s\n"
    assert vllm_progress(warm) == Progress(Phase.COMPILING, "taken from the cache")
    both = "GPU KV cache size: 65,024 tokens, Maximum concurrency for 8,192 tokens per request: 7.94x\n"
    assert vllm_progress(both) == Progress(Phase.KV_CACHE, "65,024 tokens")


def test_phases_of_the_build_for_cpus() -> None:
    """Lines of real vLLM 0.32.0 for CPU, recorded in the lab."""
    seen = phases(
        "(Worker pid=54) INFO 11-24 11:23:13 [cpu_model_runner.py:68] Starting to load model /model_data/tiny-qwen2...\n"
        "(Worker pid=54) INFO 11-24 11:23:14 [default_loader.py:501] Loading weights took 0.03 seconds\n"
        "(Worker pid=54) INFO 11-24 11:23:14 [cpu_model_runner.py:87] Warming up model for the compilation...\n"
        "(Worker pid=54) INFO 11-24 11:23:59 [cpu_model_runner.py:91] Warming up done.\n"
        "(EngineCore pid=31) INFO 11-24 11:23:59 [kv_cache_utils.py:2327] CPU KV cache size: 2,097,152 tokens, "
        "Maximum concurrency for 16,384 tokens per request: 128.00x\n"
        "(EngineCore pid=31) INFO 11-24 11:24:03 [core.py:402] init engine (profile, create kv cache, warmup model) took 48.73 s\n"
    )
    assert [one.phase for one in seen] == [Phase.LOADING, Phase.LOADING, Phase.COMPILING, Phase.KV_CACHE, Phase.SERVING]
    assert seen[3].detail == "2,097,152 tokens"


def test_waiting_for_the_gpu_is_a_phase_and_a_new_start_hides_the_old() -> None:
    waiting = vllm_progress(VLLM_WAITING)
    assert waiting
    assert waiting.phase is Phase.WAITING_FOR_GPU
    taken = vllm_progress(VLLM_WAITING + "stoker: GPU lock taken after 12.1 s\n")
    assert taken
    assert taken.phase is Phase.STARTING
    again = vllm_progress(VLLM_FULL_START + VLLM_WAITING)
    assert again
    assert again.phase is Phase.WAITING_FOR_GPU
    assert vllm_progress("nothing known here\n") is None


def test_ollama_phases() -> None:
    seen = [ollama_progress(OLLAMA_LOADED[: m.end()]) for m in re.finditer("\n", OLLAMA_LOADED)]
    assert [one.phase for one in seen if one] == [
        *(Phase.STARTING,) * 3,
        *(Phase.SERVING,) * 2,
        *(Phase.LOADING,) * 2,
        *(Phase.SERVING,) * 2,
    ]
    assert seen[-1] == Progress(Phase.SERVING, "model loaded")


def test_the_first_cause_wins_over_what_follows_from_it() -> None:
    log = vllm_failure(
        "ValueError: No available memory for the cache blocks.",
        "ERROR 04-18 10:11:19 [x.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    )
    found = engine_diagnosis("vllm", log)
    assert found
    assert found.id == "gpu-out-of-memory"


def test_a_hint_gives_way_to_an_error() -> None:
    log = vllm_failure(
        "RuntimeError: CUDA out of memory. Tried to allocate 1.00 GiB.",
        "Found ulimit of 1024 and failed to automatically increase",
    )
    found = engine_diagnosis("vllm", log)
    assert found
    assert found.id == "gpu-out-of-memory"


def test_an_unknown_exception_is_more_than_a_hint() -> None:
    hint = "Found ulimit of 1024 and failed to automatically increase with error"
    found = engine_diagnosis("vllm", vllm_failure("KeyError: 'model.layers.0'", hint))
    assert found
    assert found.evidence == "KeyError: 'model.layers.0'"
    found = engine_diagnosis("vllm", vllm_failure("OSError: [Errno 24] Too many open files"))
    assert found
    assert found.id == "open-files-limit"


def test_an_unknown_failure_quotes_the_first_error() -> None:
    found = engine_diagnosis("vllm", vllm_failure("KeyError: 'model.layers.0.mlp'"))
    assert found
    assert found.id == UNKNOWN
    assert found.evidence == "KeyError: 'model.layers.0.mlp'"
    assert engine_diagnosis("vllm", VLLM_FULL_START) is None
    assert engine_diagnosis("ollama", OLLAMA_LOADED) is None


def test_memory_and_old_driver_in_whole_logs() -> None:
    memory = engine_diagnosis("vllm", VLLM_MEMORY_NOT_FREE)
    assert memory
    assert memory.id == "gpu-memory-not-free"
    assert memory.heals
    driver = engine_diagnosis("ollama", OLLAMA_OLD_DRIVER)
    assert driver
    assert driver.id == "ollama-driver-too-old"


def test_a_very_long_line_is_quoted_around_what_matters() -> None:
    found = engine_diagnosis("vllm", "x" * 5000 + " No available memory for the cache blocks. " + "y" * 5000)
    assert found
    assert "No available memory" in found.evidence
    assert len(found.evidence) < 420


def test_every_diagnosis_has_its_place_in_the_troubleshooting_page() -> None:
    page = TROUBLESHOOTING.read_text()
    anchors = set(re.findall(r'<a id="([a-z0-9-]+)"></a>', page))
    named = {row.id for engine in (*NAMES, "docker") for row in catalogue(engine)} | {UNKNOWN}
    # those that are made in code stand as the first argument, a string of their own
    for source in ("death.py", "wait.py", "watch.py", "question.py"):
        text = (PACKAGE / source).read_text()
        named |= set(re.findall(r'(?:Diagnosis|told|_bad)\(\s*"([a-z][a-z-]+)"', text))
    assert named - anchors == set()
