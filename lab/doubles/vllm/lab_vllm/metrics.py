"""/metrics of vLLM v0.19.1: the families of v1/metrics/loggers.py with living values, in Prometheus' text format."""

from __future__ import annotations

import bisect
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab_vllm.generation import Request

_TTFT = [
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
    160.0,
    640.0,
    2560.0,
]
_TOKEN = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0]
_LATENCY = [
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0),
    *(1920.0, 7680.0),
]
_STEP = [1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0]
FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")

_COUNTERS = {
    "prefix_cache_queries": "Prefix cache queries, in terms of number of queried tokens.",
    "prefix_cache_hits": "Prefix cache hits, in terms of number of cached tokens.",
    "num_preemptions": "Cumulative number of preemption from the engine.",
    "external_prefix_cache_queries": "External prefix cache queries from KV connector cross-instance cache sharing.",
    "external_prefix_cache_hits": "External prefix cache hits from KV connector cross-instance cache sharing.",
    "mm_cache_queries": "Multi-modal cache queries, in terms of number of queried items.",
    "mm_cache_hits": "Multi-modal cache hits, in terms of number of cached items.",
    "estimated_flops_per_gpu": "Estimated number of floating point operations per GPU.",
    "estimated_read_bytes_per_gpu": "Estimated number of bytes read from memory per GPU.",
    "estimated_write_bytes_per_gpu": "Estimated number of bytes written to memory per GPU.",
    "prompt_tokens": "Number of prefill tokens processed.",
    "prompt_tokens_by_source": "Number of prompt tokens by source.",
    "prompt_tokens_cached": "Number of cached prompt tokens (local + external).",
    "prompt_tokens_recomputed": "Number of cached tokens recomputed for forward pass.",
    "generation_tokens": "Number of generation tokens processed.",
}
_HISTOGRAMS: dict[str, tuple[str, list[float] | None]] = {
    "request_prompt_tokens": ("Number of prefill tokens processed.", None),
    "request_generation_tokens": ("Number of generation tokens processed.", None),
    "iteration_tokens_total": ("Histogram of number of tokens per engine_step.", _STEP),
    "request_max_num_generation_tokens": ("Histogram of maximum number of requested generation tokens.", None),
    "request_params_n": ("Histogram of the n request parameter.", [1.0, 2.0, 5.0, 10.0, 20.0]),
    "request_params_max_tokens": ("Histogram of the max_tokens request parameter.", None),
    "time_to_first_token_seconds": ("Histogram of time to first token in seconds.", _TTFT),
    "inter_token_latency_seconds": ("Histogram of inter-token latency in seconds.", _TOKEN),
    "request_time_per_output_token_seconds": ("Histogram of time_per_output_token_seconds per request.", _TOKEN),
    "e2e_request_latency_seconds": ("Histogram of e2e request latency in seconds.", _LATENCY),
    "request_queue_time_seconds": ("Histogram of time spent in WAITING phase for request.", _LATENCY),
    "request_inference_time_seconds": ("Histogram of time spent in RUNNING phase for request.", _LATENCY),
    "request_prefill_time_seconds": ("Histogram of time spent in PREFILL phase for request.", _LATENCY),
    "request_prefill_kv_computed_tokens": ("Histogram of new KV tokens computed during prefill.", None),
    "request_decode_time_seconds": ("Histogram of time spent in DECODE phase for request.", _LATENCY),
}


class Histogram:
    """Counts by upper bound, with sum and count."""

    def __init__(self, bounds: list[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value


class Metrics:
    """All families of one engine."""

    def __init__(self, model_name: str, max_model_len: int, cache_info: dict[str, str]) -> None:
        self.labels = f'engine="0",model_name="{model_name}"'
        self.created = time.time()
        self.cache_info = cache_info
        self.counters = dict.fromkeys(_COUNTERS, 0)
        self.success = dict.fromkeys(FINISH_REASONS, 0)
        lengths = _one_two_five(max_model_len)
        self.histograms = {name: Histogram(bounds or lengths) for name, (_, bounds) in _HISTOGRAMS.items()}
        self._since, self._prompt_seen, self._generated_seen = time.monotonic(), 0, 0

    def first_token(self, prompt_tokens: int, seconds: float) -> None:
        """A sequence's prompt is processed and its first token is out, `seconds` after its arrival."""
        self.counters["prompt_tokens"] += prompt_tokens
        self.counters["prefix_cache_queries"] += prompt_tokens
        self.counters["generation_tokens"] += 1
        self.histograms["time_to_first_token_seconds"].observe(seconds)
        self.histograms["iteration_tokens_total"].observe(prompt_tokens + 1)

    def next_token(self, seconds: float) -> None:
        """A further token, `seconds` after the one before."""
        self.counters["generation_tokens"] += 1
        self.histograms["inter_token_latency_seconds"].observe(seconds)
        self.histograms["iteration_tokens_total"].observe(1)

    def finished(self, request: Request, reason: str, *, started: float, first: float, last: float) -> None:
        """A sequence ended; times are time.monotonic()."""
        now = time.monotonic()
        self.success[reason] += 1
        observations = {
            "request_prompt_tokens": request.prompt_tokens,
            "request_generation_tokens": request.produced,
            "request_max_num_generation_tokens": request.produced,
            "request_params_n": 1,
            "request_params_max_tokens": request.max_tokens,
            "request_time_per_output_token_seconds": (last - first) / max(request.produced - 1, 1),
            "e2e_request_latency_seconds": now - request.arrived,
            "request_queue_time_seconds": started - request.arrived,
            "request_inference_time_seconds": now - started,
            "request_prefill_time_seconds": first - started,
            "request_decode_time_seconds": last - first,
        }
        for name, value in observations.items():
            self.histograms[name].observe(value)

    def rates(self) -> tuple[float, float]:
        """(prompt, generated) tokens per second since the last call."""
        now = time.monotonic()
        span = max(now - self._since, 1e-9)
        prompt, generated = self.counters["prompt_tokens"], self.counters["generation_tokens"]
        result = (prompt - self._prompt_seen) / span, (generated - self._generated_seen) / span
        self._since, self._prompt_seen, self._generated_seen = now, prompt, generated
        return result

    def render(self, running: int, waiting: int, cache_usage: float) -> str:
        """The text of /metrics."""
        lines: list[str] = []
        gauges = {
            "num_requests_running": ("Number of requests in model execution batches.", running),
            "num_requests_waiting": ("Number of requests waiting to be processed.", waiting),
            "kv_cache_usage_perc": ("KV-cache usage. 1 means 100 percent usage.", cache_usage),
        }
        for name, (text, value) in gauges.items():
            lines += [*_head(name, "gauge", text), f"vllm:{name}{{{self.labels}}} {float(value)}"]
        lines += _head(
            "engine_sleep_state",
            "gauge",
            "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake",
        )
        for state, level in (("awake", 1.0), ("weights_offloaded", 0.0), ("discard_all", 0.0)):
            lines.append(f'vllm:engine_sleep_state{{{self.labels},sleep_state="{state}"}} {level}')
        for name, count in self.counters.items():
            lines += [
                *_head(f"{name}_total", "counter", _COUNTERS[name]),
                f"vllm:{name}_total{{{self.labels}}} {float(count)}",
            ]
            lines += _created(name, _COUNTERS[name], self.labels, self.created)
        lines += _head("request_success_total", "counter", "Count of successfully processed requests.")
        for reason, count in self.success.items():
            lines.append(
                f'vllm:request_success_total{{engine="0",finished_reason="{reason}",{self.labels[11:]}}} {float(count)}'
            )
        lines += _created("request_success", "Count of successfully processed requests.", self.labels, self.created)
        for name, histogram in self.histograms.items():
            lines += _head(name, "histogram", _HISTOGRAMS[name][0])
            total = 0
            for bound, count in zip([*map(str, histogram.bounds), "+Inf"], histogram.counts, strict=True):
                total += count
                lines.append(f'vllm:{name}_bucket{{engine="0",le="{bound}",{self.labels[11:]}}} {float(total)}')
            lines += [
                f"vllm:{name}_count{{{self.labels}}} {float(total)}",
                f"vllm:{name}_sum{{{self.labels}}} {histogram.sum}",
            ]
            lines += _created(name, _HISTOGRAMS[name][0], self.labels, self.created)
        info = ",".join(f'{key}="{value}"' for key, value in self.cache_info.items())
        lines += [
            *_head("cache_config_info", "gauge", "Information of the LLMEngine CacheConfig"),
            f"vllm:cache_config_info{{{info}}} 1.0",
        ]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP vllm:{name} {text}", f"# TYPE vllm:{name} {kind}"]


def _created(name: str, text: str, labels: str, when: float) -> list[str]:
    return [
        f"# HELP vllm:{name}_created {text}",
        f"# TYPE vllm:{name}_created gauge",
        f"vllm:{name}_created{{{labels}}} {when}",
    ]


def _one_two_five(largest: int) -> list[float]:
    bounds: list[float] = []
    power = 1
    while power <= largest:
        bounds += [float(step * power) for step in (1, 2, 5) if step * power <= largest]
        power *= 10
    return bounds
