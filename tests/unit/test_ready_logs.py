"""Phases and diagnoses from logs, and the checks of answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ready_logs import (
    OLLAMA_LOADED,
    OLLAMA_OLD_DRIVER,
    VLLM_FULL_START,
    VLLM_MEMORY_NOT_FREE,
    VLLM_WAITING,
    vllm_failure,
)

from stoker.ready.diagnosis import UNKNOWN, diagnose_text
from stoker.ready.failures_host import HOST_FAILURES
from stoker.ready.failures_ollama import OLLAMA_FAILURES
from stoker.ready.failures_vllm import VLLM_FAILURES
from stoker.ready.logtext import last_lines, log_lines
from stoker.ready.ollama_log import ollama_diagnosis, ollama_progress
from stoker.ready.phase import Phase, Progress
from stoker.ready.vllm_log import vllm_diagnosis, vllm_progress

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


# One line or more for every row of the catalogue: (engine, printed, id, in the remedy or cause)
CASES: list[tuple[str, str, str, str]] = [
    ("vllm", "vllm: error: unrecognized arguments: --task=embed", "unknown-argument", "--runner pooling"),
    ("vllm", "vllm serve: error: argument --block-size: invalid int value: 'x'", "unknown-argument", "--block-size"),
    (
        "vllm",
        "RuntimeError: Insufficient space in /dev/shm for shared-memory allocation: 160 MiB required, 64 MiB free. "
        "Increase /dev/shm (e.g. --shm-size or --ipc=host).",
        "shared-memory",
        "profiles",
    ),
    ("vllm", "ValueError: Config file must be of a yaml/yml type. json supplied", "config-not-yaml", ".yaml"),
    (
        "vllm",
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        "no-kernel-image",
        "v0.19.1",
    ),
    (
        "vllm",
        "Found GPU0 Tesla V100-SXM2-32GB which is of compute capability (CC) 7.0.",
        "no-kernel-image",
        "Tesla V100-SXM2-32GB",
    ),
    (
        "vllm",
        "RuntimeError: Found Tesla P40 which is too old to be supported by the triton GPU compiler, which is used as the backend.",
        "gpu-too-old",
        "Tesla P40",
    ),
    (
        "vllm",
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla V100-SXM2-32GB GPU has compute capability 7.0.",
        "bfloat16-unsupported",
        "half",
    ),
    (
        "vllm",
        "ValueError: torch.bfloat16 is not supported for quantization method gptq. Supported dtypes: [torch.float16]",
        "bfloat16-unsupported",
        "half",
    ),
    (
        "vllm",
        "ValueError: The quantization method gptq_marlin is not supported for the current GPU. Minimum capability: 75. Current capability: 70.",
        "quantization-unsupported",
        "gptq_marlin needs compute capability 75",
    ),
    (
        "vllm",
        "ValueError: Free memory on device cuda:0 (13.01/31.73 GiB) on startup is less than desired GPU memory utilization (0.45, 14.28 GiB).",
        "gpu-memory-not-free",
        "at most 0.41",
    ),
    (
        "vllm",
        "ValueError: Free memory on device (3.22/4.0 GiB) on startup is less than desired GPU memory utilization (0.9, 3.6 GiB).",
        "gpu-memory-not-free",
        "at most 0.80",
    ),
    (
        "vllm",
        "AssertionError: Error in memory profiling. Initial free memory 20.11 GiB, current free memory 25.01 GiB.",
        "memory-profiling-race",
        "one after the other",
    ),
    (
        "vllm",
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.",
        "no-memory-for-cache",
        "gpu_memory_utilization",
    ),
    (
        "vllm",
        "ValueError: To serve at least one request with the models's max seq len (16384), (3.00 GiB KV cache is needed, which is larger than the available KV cache memory (2.10 GiB). Based on the available memory, the estimated maximum model length is 11456. Try increasing `gpu_memory_utilization`",
        "context-too-long",
        "at most 11456",
    ),
    (
        "vllm",
        "ValueError: To serve at least one request with the model's max seq len (16384), 3.0 GiB KV cache is needed, which is larger than the available KV cache memory (2.1 GiB).",
        "context-too-long",
        "lower max_model_len",
    ),
    (
        "vllm",
        "ValueError: The model's max seq len (16384) is larger than the maximum number of tokens that can be stored in KV cache (11456).",
        "context-too-long",
        "at most 11456",
    ),
    (
        "vllm",
        "  Value error, User-specified max_model_len (32768) is greater than the derived max_model_len (max_position_embeddings=16384 or model_max_length=None in model's config.json).",
        "context-longer-than-model",
        "at most 16384",
    ),
    (
        "vllm",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.17 GiB. GPU 0 has a total capacity of 31.73 GiB",
        "gpu-out-of-memory",
        "1.17 GiB",
    ),
    ("vllm", "RuntimeError: CUDA error: out of memory", "gpu-out-of-memory", "max_num_seqs"),
    (
        "vllm",
        "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 131072, Hardware limit: 98304. Reducing block sizes or `num_stages` may help.",
        "kernel-too-large",
        "98304",
    ),
    (
        "vllm",
        "TimeoutError: Timed out waiting for engine core processes to start. This is often caused by slow weight loading",
        "engine-start-timeout",
        "VLLM_ENGINE_READY_TIMEOUT_S",
    ),
    (
        "vllm",
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files.",
        "hub-unreachable",
        "mirror",
    ),
    ("vllm", "huggingface_hub.errors.LocalEntryNotFoundError: An error happened", "hub-unreachable", "mirror"),
    ("vllm", "OSError: You are trying to access a gated repo.", "gated-model", "HF_TOKEN"),
    ("vllm", "huggingface_hub.errors.RepositoryNotFoundError: 404", "repository-not-found", "name"),
    (
        "vllm",
        "OSError: Consistency check failed: file should be of size 4970000000 but has size 100",
        "download-broken",
        "delete",
    ),
    (
        "vllm",
        "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
        "weights-damaged",
        "deploy again",
    ),
    ("vllm", "RuntimeError: Cannot find any model weights with `/model_data/bge-m3`", "weights-missing", "*.bin"),
    (
        "vllm",
        "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/model_data/llama'. "
        "Use `repo_type` argument if needed.",
        "model-not-found",
        "/model_data/llama",
    ),
    (
        "vllm",
        "huggingface_hub.errors.HFValidationError: Repo id must use alphanumeric chars, '-', '_' or '.'. The name cannot start or end "
        "with '-' or '.' and the maximum length is 96: '/nowhere'.",
        "model-not-found",
        "/nowhere",
    ),
    (
        "vllm",
        "ValueError: Invalid repository ID or local directory specified: '/model_data/llama'.",
        "model-not-found",
        "/model_data/llama",
    ),
    (
        "vllm",
        "OSError: /model_data/llama does not appear to have a file named config.json. Checkout 'https://huggingface.co'",
        "model-not-found",
        "/model_data/llama",
    ),
    (
        "vllm",
        "ValueError: Unrecognized model in /model_data/x. Should have a `model_type` key",
        "model-not-supported",
        "v0.19.1",
    ),
    (
        "vllm",
        "ValueError: Model architectures ['FooForCausalLM'] are not supported for now. Supported architectures: dict_keys([])",
        "model-not-supported",
        "v0.19.1",
    ),
    (
        "vllm",
        "(APIServer pid=1) ERROR 04-18 10:11:20 [core_client.py:668] Engine core proc EngineCore died unexpectedly, shutting down client.",
        "engine-died",
        "dmesg",
    ),
    (
        "vllm",
        "ValueError: The repository /m contains custom code which must be executed to correctly load the model.",
        "remote-code-needed",
        "trust_remote_code",
    ),
    ("ollama", 'level=WARN msg="NVIDIA driver too old" required_driver="570 or newer"', "ollama-driver-too-old", "570"),
    (
        "ollama",
        "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory",
        "ollama-out-of-memory",
        "nvidia-smi",
    ),
    (
        "ollama",
        '{"error":"model \\"bge-m3\\" not found, try pulling it first"}'.replace("\\", ""),
        "ollama-model-missing",
        "ollama pull bge-m3",
    ),
    (
        "ollama",
        "error: timed out waiting for llama-server to start - progress 0.00",
        "ollama-load-timeout",
        "OLLAMA_LOAD_TIMEOUT",
    ),
    ("ollama", "llama-server process has terminated: exit status 1", "ollama-runner-died", "dmesg"),
    ("ollama", "llama runner process no longer running: -1", "ollama-runner-died", "dmesg"),
    ("ollama", "embedding contains NaN or Inf values", "embedding-not-finite", "one by one"),
    ("ollama", 'msg="inference compute" id=cpu library=cpu', "ollama-on-cpu", "nvidia-smi"),
    ("ollama", "Error: listen tcp 0.0.0.0:11434: bind: address already in use", "port-taken", "11434"),
    ("docker", 'could not select device driver "nvidia" with capabilities: [[gpu]]', "no-nvidia-runtime", "toolkit"),
    (
        "docker",
        "failed to discover GPU vendor from CDI: no known GPU vendor found",
        "no-cdi-specification",
        "nvidia-cdi-refresh",
    ),
    (
        "docker",
        "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=GPU-1234",
        "gpu-not-in-cdi",
        "nvidia.com/gpu=GPU-1234",
    ),
    (
        "docker",
        "nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown",
        "driver-not-loaded",
        "dkms",
    ),
    (
        "docker",
        "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.9, please update your driver to a newer version",
        "driver-too-old-for-image",
        "CUDA 12.9",
    ),
    ("vllm", "Failed to initialize NVML: Unknown Error", "gpu-lost-in-container", "CDI"),
    ("vllm", "Failed to initialize NVML: Driver/library version mismatch", "driver-library-mismatch", "reboot"),
    (
        "vllm",
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver",
        "driver-too-old-for-torch",
        "11040",
    ),
    (
        "vllm",
        "RuntimeError: Failed to infer device type, please set the environment variable",
        "no-gpu-in-container",
        "nvidia-smi -L",
    ),
    ("vllm", "torch.AcceleratorError: CUDA error: unspecified launch failure", "gpu-fault", "Xid"),
    ("vllm", "OSError: [Errno 98] Address already in use", "port-taken", "ss -ltnp"),
    ("docker", "Bind for 0.0.0.0:11401 failed: port is already allocated", "port-taken", "11401"),
    (
        "docker",
        "failed to bind host port for 0.0.0.0:11401:172.18.0.2:8000/tcp: address already in use",
        "port-taken",
        "11401",
    ),
    ("docker", 'error mounting "/opt/x" to rootfs at "/x": not a directory', "mount-failed", "/opt/x"),
    ("docker", 'exec: "python3": executable file not found in $PATH: unknown', "command-not-found", "python3"),
    (
        "vllm",
        "stoker: cannot open the lock /run/stoker/locks/GPU-1.lock: No such file or directory",
        "gpu-lock-missing",
        "GPU-1.lock",
    ),
    ("vllm", "OSError: [Errno 28] No space left on device", "disk-full", "df -h"),
    (
        "vllm",
        "PermissionError: [Errno 13] Permission denied: '/root/.cache/vllm'",
        "permission-denied",
        "/root/.cache/vllm",
    ),
    ("vllm", "Found ulimit of 1024 and failed to automatically increase with error", "open-files-limit", "nofile"),
]


@pytest.mark.parametrize(
    ("engine", "printed", "name", "told"), CASES, ids=[f"{case[2]}-{at}" for at, case in enumerate(CASES)]
)
def test_each_failure_is_known_by_its_text(engine: str, printed: str, name: str, told: str) -> None:
    log = vllm_failure(printed) if engine == "vllm" else printed
    found = diagnose_text(engine, log)
    assert found
    assert found.id == name
    assert told in f"{found.cause} {found.remedy}"
    assert "{" not in found.cause + found.remedy
    assert found.evidence
    assert "initialization failed" not in found.evidence


def test_each_row_of_the_catalogue_has_a_case() -> None:
    rows = {row.id for row in (*HOST_FAILURES, *VLLM_FAILURES, *OLLAMA_FAILURES)}
    assert rows == {case[2] for case in CASES}


def test_the_first_cause_wins_over_what_follows_from_it() -> None:
    log = vllm_failure(
        "ValueError: No available memory for the cache blocks.",
        "ERROR 04-18 10:11:19 [x.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    )
    found = vllm_diagnosis(log)
    assert found
    assert found.id == "gpu-out-of-memory"


def test_a_hint_gives_way_to_an_error() -> None:
    log = vllm_failure(
        "RuntimeError: CUDA out of memory. Tried to allocate 1.00 GiB.",
        "Found ulimit of 1024 and failed to automatically increase",
    )
    found = vllm_diagnosis(log)
    assert found
    assert found.id == "gpu-out-of-memory"


def test_an_unknown_exception_is_more_than_a_hint() -> None:
    hint = "Found ulimit of 1024 and failed to automatically increase with error"
    found = vllm_diagnosis(vllm_failure("KeyError: 'model.layers.0'", hint))
    assert found
    assert found.evidence == "KeyError: 'model.layers.0'"
    found = vllm_diagnosis(vllm_failure("OSError: [Errno 24] Too many open files"))
    assert found
    assert found.id == "open-files-limit"


def test_an_unknown_failure_quotes_the_first_error() -> None:
    found = vllm_diagnosis(vllm_failure("KeyError: 'model.layers.0.mlp'"))
    assert found
    assert found.id == UNKNOWN
    assert found.evidence == "KeyError: 'model.layers.0.mlp'"
    assert vllm_diagnosis(VLLM_FULL_START) is None
    assert ollama_diagnosis(OLLAMA_LOADED) is None


def test_memory_and_old_driver_in_whole_logs() -> None:
    memory = vllm_diagnosis(VLLM_MEMORY_NOT_FREE)
    assert memory
    assert memory.id == "gpu-memory-not-free"
    assert memory.heals
    driver = ollama_diagnosis(OLLAMA_OLD_DRIVER)
    assert driver
    assert driver.id == "ollama-driver-too-old"


def test_a_very_long_line_is_quoted_around_what_matters() -> None:
    found = vllm_diagnosis("x" * 5000 + " No available memory for the cache blocks. " + "y" * 5000)
    assert found
    assert "No available memory" in found.evidence
    assert len(found.evidence) < 420


def test_every_diagnosis_has_its_place_in_the_troubleshooting_page() -> None:
    page = TROUBLESHOOTING.read_text()
    anchors = set(re.findall(r'<a id="([a-z0-9-]+)"></a>', page))
    named = {row.id for row in (*HOST_FAILURES, *VLLM_FAILURES, *OLLAMA_FAILURES)} | {UNKNOWN}
    # those that are made in code stand as the first argument, a string of their own
    for source in ("death.py", "wait.py", "watch.py", "question.py"):
        text = (PACKAGE / source).read_text()
        named |= set(re.findall(r'(?:Diagnosis|told|_bad)\(\s*"([a-z][a-z-]+)"', text))
    assert named - anchors == set()
