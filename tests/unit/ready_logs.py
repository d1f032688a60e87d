"""Logs for the tests, written after the lines of vLLM v0.19.1 and Ollama 0.32 (not recorded from them)."""

from __future__ import annotations

_API = "(APIServer pid=1) "
_CORE = "(EngineCore pid=231) "

VLLM_FULL_START = (
    "stoker: start, locks GPU-3f0c.lock\n"
    "stoker: GPU lock taken after 0.0 s\n"
    f"{_API}INFO 04-18 10:11:02 [utils.py:299] vLLM server version 0.19.1, serving model /model_data/llama\n"
    f"{_API}INFO 04-18 10:11:02 [utils.py:233] non-default args: {{'model_tag': '/model_data/llama'}}\n"
    f"{_API}INFO 04-18 10:11:08 [model.py:549] Resolved architecture: LlamaForCausalLM\n"
    f"{_API}INFO 04-18 10:11:08 [model.py:1678] Using max model len 8192\n"
    f"{_CORE}INFO 04-18 10:11:14 [core.py:105] Initializing a V1 LLM engine (v0.19.1) with config: model='/m'\n"
    f"{_CORE}INFO 04-18 10:11:15 [parallel_state.py:1400] world_size=1 rank=0 local_rank=0 backend=nccl\n"
    f"{_CORE}INFO 04-18 10:11:16 [cuda.py:274] Using TRITON_ATTN attention backend out of potential backends: "
    "['TRITON_ATTN', 'FLEX_ATTENTION'].\n"
    f"{_CORE}INFO 04-18 10:11:16 [gpu_model_runner.py:4735] Starting to load model /model_data/llama...\n"
    f"{_CORE}\rLoading safetensors checkpoint shards:   0% Completed | 0/2 [00:00<?, ?it/s]\n"
    f"{_CORE}\rLoading safetensors checkpoint shards:  50% Completed | 1/2 [00:05<00:05,  5.60s/it]\n"
    f"{_CORE}\rLoading safetensors checkpoint shards: 100% Completed | 2/2 [00:11<00:00,  5.60s/it]\n"
    f"{_CORE}INFO 04-18 10:11:28 [default_loader.py:384] Loading weights took 11.20 seconds\n"
    f"{_CORE}INFO 04-18 10:11:28 [gpu_model_runner.py:4820] Model loading took 5.35 GiB memory and 12.3 seconds\n"
    f"{_CORE}INFO 04-18 10:11:33 [backends.py:1051] Using cache directory: "
    "/root/.cache/vllm/torch_compile_cache/9f/rank_0_0/backbone for vLLM's torch.compile\n"
    f"{_CORE}INFO 04-18 10:11:33 [backends.py:1111] Dynamo bytecode transform time: 4.87 s\n"
    f"{_CORE}INFO 04-18 10:11:50 [backends.py:372] Compiling a graph for compile range (1, 2048) takes 15.2 s\n"
    f"{_CORE}INFO 04-18 10:11:51 [monitor.py:48] torch.compile took 20.07 s in total\n"
    f"{_CORE}INFO 04-18 10:11:53 [gpu_worker.py:410] Initial profiling/warmup run took 1.42 s\n"
    f"{_CORE}INFO 04-18 10:11:54 [gpu_worker.py:436] Available KV cache memory: 7.94 GiB\n"
    f"{_CORE}INFO 04-18 10:11:54 [kv_cache_utils.py:1319] GPU KV cache size: 65,024 tokens\n"
    f"{_CORE}INFO 04-18 10:11:54 [kv_cache_utils.py:1324] Maximum concurrency for 8,192 tokens per request: 7.94x\n"
    f"{_CORE}\rCapturing CUDA graphs (mixed prefill-decode, PIECEWISE):   0%|          | 0/7 [00:00<?, ?it/s]"
    "\rCapturing CUDA graphs (mixed prefill-decode, PIECEWISE):  57%|█████▋    | 4/7 [00:01<00:01,  2.80it/s]\n"
    f"{_CORE}INFO 04-18 10:12:03 [gpu_model_runner.py:5746] Graph capturing finished in 9 secs, took 0.30 GiB\n"
    f"{_CORE}INFO 04-18 10:12:03 [core.py:283] init engine (profile, create kv cache, warmup model) took 34.9 seconds\n"
    f"{_API}INFO 04-18 10:12:04 [api_server.py:590] Supported tasks: ['generate']\n"
    f"{_API}INFO 04-18 10:12:04 [api_server.py:594] Starting vLLM server on http://0.0.0.0:8000\n"
    f"{_API}INFO:     Started server process [1]\n"
    f"{_API}INFO:     Application startup complete.\n"
)

VLLM_WAITING = "stoker: start, locks GPU-3f0c.lock\nstoker: waiting for the GPU (lock GPU-3f0c.lock) for 0 s\n"


def vllm_failure(error: str, *before: str) -> str:
    """A start that ends in `error`, told three times over as vLLM does: the engine's own traceback first."""
    core = f"{_CORE}ERROR 04-18 10:11:20 [core.py:1108] "
    plain = _CORE
    text = "\n".join(VLLM_FULL_START.splitlines()[:10]) + "\n"
    text += "".join(f"{_CORE}{line}\n" for line in before)
    text += f"{core}EngineCore failed to start.\n{core}Traceback (most recent call last):\n"
    text += f'{core}  File "/usr/local/lib/python3.12/dist-packages/vllm/v1/engine/core.py", line 1082, in run_engine_core\n'
    text += f"{core}    engine_core = EngineCoreProc(*args, engine_index=dp_rank, **kwargs)\n"
    text += f"{core}{error}\n"
    text += f"{plain}Process EngineCore:\n{plain}Traceback (most recent call last):\n"
    text += f'{plain}  File "/usr/lib/python3.12/multiprocessing/process.py", line 314, in _bootstrap\n'
    text += f"{plain}{error}\n"
    text += f"{_API}Traceback (most recent call last):\n"
    text += f'{_API}  File "/usr/local/bin/vllm", line 10, in <module>\n{_API}    sys.exit(main())\n'
    text += f"{_API}RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}\n"
    return text


VLLM_MEMORY_NOT_FREE = vllm_failure(
    "ValueError: Free memory on device cuda:0 (13.01/31.73 GiB) on startup is less than desired GPU memory utilization "
    "(0.45, 14.28 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)

_TIME = "time=2026-11-20T10:00:0"
_OLLAMA_BEGIN = (
    f'{_TIME}0.101Z level=INFO source=routes.go:1933 msg="server config" env="map[OLLAMA_KEEP_ALIVE:-1]"\n'
    f'{_TIME}0.105Z level=INFO source=images.go:499 msg="total blobs: 4"\n'
    f'{_TIME}0.110Z level=INFO source=routes.go:1987 msg="Listening on [::]:11434 (version 0.32.15)"\n'
)
OLLAMA_LOADED = (
    _OLLAMA_BEGIN
    + f'{_TIME}1.301Z level=INFO source=types.go:32 msg="inference compute" id=GPU-77 filter_id= library=CUDA compute=6.1 '
    'name=CUDA0 description="Tesla P40" libdirs=ollama,cuda_v12 driver=13.0 total="23.9 GiB" available="23.7 GiB"\n'
    f'{_TIME}1.302Z level=INFO source=routes.go:2040 msg="vram-based default context" total_vram="23.9 GiB"\n'
    f'{_TIME}3.100Z level=INFO source=llama_server.go:433 msg="starting llama-server" cmd="/usr/lib/ollama/llama-server"\n'
    f'{_TIME}3.110Z level=INFO source=llama_server.go:1134 msg="waiting for llama-server to become available" '
    'status="llm server not responding"\n'
    f'{_TIME}5.100Z level=INFO source=llama_server.go:1201 msg="llama-server started in 2.01 seconds"\n'
    f'{_TIME}5.101Z level=INFO source=sched.go:739 msg="loaded runners" count=1\n'
)
OLLAMA_OLD_DRIVER = (
    _OLLAMA_BEGIN + f'{_TIME}0.900Z level=WARN source=cuda_compat.go:88 msg="NVIDIA driver too old" device="Tesla P40" '
    'driver_version=535.309.01 required_driver="570 or newer"\n'
    f'{_TIME}1.301Z level=INFO source=types.go:60 msg="inference compute" id=cpu library=cpu compute="" name=cpu\n'
)
