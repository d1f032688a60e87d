"""The HTTP interface of a released vLLM, its own code, before an engine that makes tokens up.

    PYTHONPATH=RELEASED python released_api.py serve MODEL [arguments of `vllm serve`]

Run by the Python of real vLLM for CPU with the Python files of the release (released.py) before the installed ones. Parser, validation,
error handlers, request and answer models, streams and metrics are the release's; nothing is computed. So what the contract says of the pinned
version's interface has a witness that is neither the double nor another version.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

import torch
import vllm.entrypoints.cli.main
import vllm.platforms
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.openai import api_server
from vllm.outputs import CompletionOutput, PoolingOutput, PoolingRequestOutput, RequestOutput
from vllm.plugins.io_processors import get_io_processor
from vllm.renderers import renderer_from_config
from vllm.sampling_params import RequestOutputKind
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.metrics.loggers import PrometheusStatLogger

TOKEN_SECONDS = 0.002
FIRST_TOKEN, TOKENS = 300, 100  # ordinary words of any vocabulary


class MadeUpEngine:
    """What the API layer asks of an engine's client."""

    errored = False
    is_running = True
    is_stopped = False
    dead_error = EngineDeadError()

    def __init__(self, config: Any) -> None:
        self.vllm_config = config
        self.model_config = config.model_config
        self.renderer = renderer_from_config(config)
        self.io_processor = get_io_processor(config, self.renderer, self.model_config.io_processor_plugin)
        self.input_processor = InputProcessor(config, renderer=self.renderer)
        config.cache_config.num_gpu_blocks = 100
        PrometheusStatLogger(config, [0]).log_engine_initialized()

    async def get_supported_tasks(self) -> tuple[str, ...]:
        return ("token_embed", "embed") if self.model_config.runner_type == "pooling" else ("generate",)

    async def check_health(self) -> None:
        pass

    async def is_tracing_enabled(self) -> bool:
        return False

    async def do_log_stats(self) -> None:
        pass

    async def abort(self, request_id: str) -> None:
        pass

    def shutdown(self, timeout: float | None = None) -> None:
        pass

    async def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, **_: Any
    ) -> AsyncIterator[RequestOutput]:
        given = list(getattr(prompt, "prompt_token_ids", None) or prompt["prompt_token_ids"])
        tokenizer = self.renderer.get_tokenizer()
        count = sampling_params.max_tokens or 16
        in_pieces = sampling_params.output_kind == RequestOutputKind.DELTA
        tokens: list[int] = []
        for number in range(count):
            await asyncio.sleep(TOKEN_SECONDS)
            tokens.append(FIRST_TOKEN + number % TOKENS)
            last = number == count - 1
            if not in_pieces and not last:
                continue
            new = tokens[-1:] if in_pieces else tokens
            output = CompletionOutput(
                index=0,
                text=tokenizer.decode(new),
                token_ids=new,
                cumulative_logprob=None,
                logprobs=None,
                finish_reason="length" if last else None,
            )
            yield RequestOutput(request_id, None, given, None, [output], finished=last)

    async def encode(
        self, prompt: Any, pooling_params: Any, request_id: str, **_: Any
    ) -> AsyncIterator[PoolingRequestOutput[PoolingOutput]]:
        values = torch.nn.functional.normalize(torch.randn(self.model_config.get_hidden_size()), dim=0)
        yield PoolingRequestOutput(
            request_id=request_id,
            outputs=PoolingOutput(data=values),
            prompt_token_ids=list(prompt["prompt_token_ids"]),
            finished=True,
            num_cached_tokens=0,
        )


@asynccontextmanager
async def made_up_client(args: Any, **_: Any) -> AsyncIterator[MadeUpEngine]:
    """In the place of the function that starts the engine's process."""
    yield MadeUpEngine(
        AsyncEngineArgs.from_cli_args(args).create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    )


if __name__ == "__main__":
    vllm.platforms.current_platform.device_type = "cpu"
    api_server.build_async_engine_client = made_up_client
    sys.argv[0] = "vllm"
    vllm.entrypoints.cli.main.main()
