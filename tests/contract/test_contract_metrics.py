"""/metrics: vLLM's own families by name and type, and that they live. What Prometheus' client adds (process_, python_, _created) is not its own."""

from __future__ import annotations

import contextlib
import re

import pytest
from clause import Clause
from running import Running, wait_for
from streaming import Stream
from subjects import Subject
from wire import AUTHORIZED, ask

pytestmark = pytest.mark.server("generating")

COMPLETION = {"model": "llama3.1-8b", "prompt": "Say hello.", "max_tokens": 4, "ignore_eos": True}
GAUGES = [
    "cache_config_info",
    "engine_sleep_state",
    "kv_cache_usage_perc",
    "num_requests_running",
    "num_requests_waiting",
]
COUNTERS = [
    "estimated_flops_per_gpu",
    "estimated_read_bytes_per_gpu",
    "estimated_write_bytes_per_gpu",
    "external_prefix_cache_hits",
    "external_prefix_cache_queries",
    "generation_tokens",
    "mm_cache_hits",
    "mm_cache_queries",
    "num_preemptions",
    "prefix_cache_hits",
    "prefix_cache_queries",
    "prompt_tokens",
    "prompt_tokens_by_source",
    "prompt_tokens_cached",
    "prompt_tokens_recomputed",
    "request_success",
]
HISTOGRAMS = [
    "e2e_request_latency_seconds",
    "inter_token_latency_seconds",
    "iteration_tokens_total",
    "request_decode_time_seconds",
    "request_generation_tokens",
    "request_inference_time_seconds",
    "request_max_num_generation_tokens",
    "request_params_max_tokens",
    "request_params_n",
    "request_prefill_kv_computed_tokens",
    "request_prefill_time_seconds",
    "request_prompt_tokens",
    "request_queue_time_seconds",
    "request_time_per_output_token_seconds",
    "time_to_first_token_seconds",
]


def types(gauges: list[str], counters: list[str], histograms: list[str]) -> list[str]:
    """As in the TYPE lines of Prometheus' text format, sorted."""
    lines = [f"{name} gauge" for name in gauges] + [f"{name}_total counter" for name in counters]
    return sorted(lines + [f"{name} histogram" for name in histograms])


def text(server: Running) -> str:
    return ask(server, "GET", "/metrics").text()


def value(server: Running, name: str) -> float:
    found = re.findall(rf"^vllm:{name}{{[^}}]*}} (\S+)$", text(server), re.MULTILINE)
    assert found, f"no {name} in /metrics"
    return sum(map(float, found))


def test_content_type(clause: Clause, server: Running) -> None:
    clause.check(ask(server, "GET", "/metrics").headers["content-type"].partition(";")[0], "text/plain")


def test_families_and_their_types(clause: Clause, server: Running) -> None:
    found = re.findall(r"^# TYPE vllm:(\S+ \S+)$", text(server), re.MULTILINE)
    clause.check(sorted(line for line in found if "_created " not in line), types(GAUGES, COUNTERS, HISTOGRAMS))


def test_labels(clause: Clause, server: Running) -> None:
    (labels,) = re.findall(r"^vllm:num_requests_running\{(.*)\} ", text(server), re.MULTILINE)
    clause.check(labels, 'engine="0",model_name="llama3.1-8b"')


def test_finish_reasons(clause: Clause, server: Running) -> None:
    found = re.findall(r'^vllm:request_success_total\{.*finished_reason="(\w+)"', text(server), re.MULTILINE)
    clause.check(sorted(found), ["abort", "error", "length", "repetition", "stop"])


def test_tokens_are_counted(clause: Clause, server: Running) -> None:
    before = value(server, "generation_tokens_total")
    ask(server, "POST", "/v1/completions", COMPLETION, headers=AUTHORIZED)
    clause.check(
        bool(wait_for(lambda: value(server, "generation_tokens_total") == before + 4, "four tokens more")), True
    )


def test_a_finished_request_is_counted(clause: Clause, server: Running) -> None:
    def seen() -> tuple[float, float]:
        return value(server, "time_to_first_token_seconds_count"), value(server, "request_success_total")

    first, success = seen()
    ask(server, "POST", "/v1/completions", COMPLETION, headers=AUTHORIZED)
    clause.check(bool(wait_for(lambda: seen() == (first + 1, success + 1), "one request more")), True)


def test_a_client_that_leaves_frees_its_place(clause: Clause, server: Running, subject: Subject) -> None:
    """And is counted nowhere, not as finished with the reason `abort` either: no alert can rest on that."""
    before = value(server, "request_success_total")
    with Stream(server, subject.stream_tokens, headers=AUTHORIZED):
        wait_for(lambda: value(server, "num_requests_running") == 1, "it runs")
    wait_for(lambda: value(server, "num_requests_running") == 0, "its place is free")
    clause.check(value(server, "request_success_total") - before, 0.0)


def test_more_requests_than_slots_wait(clause: Clause, server: Running, subject: Subject) -> None:
    """--max-num-seqs 16."""
    with contextlib.ExitStack() as streams:
        for _ in range(18):
            streams.enter_context(Stream(server, subject.stream_tokens, headers=AUTHORIZED, wait=False))

        def seen() -> tuple[float, float]:
            return value(server, "num_requests_running"), value(server, "num_requests_waiting")

        clause.check(bool(wait_for(lambda: seen() == (16.0, 2.0), "16 run and 2 wait")), True)
