"""The catalogue of failures against what was really printed, and against what is known to go wrong."""

from __future__ import annotations

import itertools
import random
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ready_logs import OLLAMA_LOADED, VLLM_FULL_START, vllm_failure

from stoker.engine.registry import NAMES
from stoker.plan.compatibility import engine_version
from stoker.plan.memory.kv_cache import CacheSettings
from stoker.plan.memory.layout import layout_of
from stoker.plan.memory.predict import GIB, InstanceMemory, Prediction, predict
from stoker.ready.death import death_diagnosis
from stoker.ready.diagnosis import catalogue, diagnose_text
from stoker.ready.failure import Known
from stoker.ready.logtext import last_lines
from stoker.ready.outcome import Outcome, Verdict
from stoker.ready.phase import Phase, Progress
from stoker.ready.probe import Container
from stoker.ready.target import Target

DATA = Path(__file__).parents[1] / "data"
RECORDED: list[dict[str, Any]] = tomllib.loads((DATA / "failure_logs.toml").read_text())["log"]
MADE: list[dict[str, Any]] = tomllib.loads((DATA / "failure_lines.toml").read_text())["line"]
ENGINES = (*NAMES, "docker")
ROWS = list({id(row): row for engine in ENGINES for row in catalogue(engine)}.values())

# What may stand anywhere in a log and says nothing of the cause.
CONSEQUENCES = (
    "(EngineCore pid=231) ERROR 04-18 10:11:20 [core.py:1108] EngineCore failed to start.",
    "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
    "(APIServer pid=1) ERROR 05-01 14:39:06 [async_llm.py:699] AsyncLLM output_handler failed.",
    "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.",
    "RuntimeError: Worker failed with error 'CUDA out of memory. Tried to allocate 2.00 GiB.', please check the stack trace above for the root cause",
    "(Worker_TP1 pid=78) ERROR 07-23 19:34:51 [multiproc_executor.py:487] WorkerProc failed to start.",
    "ERROR 11-27 13:59:36 api_server.py:188] RPCServer process died before responding to readiness probe",
    "CRITICAL 03-13 09:00:43 [core_client.py:260] Got fatal signal from worker processes, shutting down. See stack trace above for root cause issue.",
    "Process EngineCore:",
)
# Warnings of starts that succeed: each holds words of some row. The two with dates of November were printed by real vLLM 0.32.0 in the lab.
WARNINGS = (
    "WARNING 10-10 10:22:58 [_custom_ops.py:18] Failed to import from vllm._C with ImportError('libcuda.so.1: cannot open shared object file: No such file or directory')",
    "(APIServer pid=1) WARNING 11-20 10:11:20 [weight_utils.py:1] HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded with url: /api/models",
    "(EngineCore pid=9) WARNING 11-20 10:11:20 [x.py:1] CUDA out of memory. Tried to allocate 1.00 GiB, retrying with a smaller batch",
    "(APIServer pid=1) WARNING 11-28 04:45:38 [system_utils.py:255] Found ulimit of 20000 and failed to automatically increase with error current limit",
    "(EngineCore pid=30) INFO 11-28 04:53:53 [shm_broadcast.py:871] No available shared memory broadcast block found in 60 seconds. This typically happens",
    "(EngineCore pid=9) INFO 11-20 10:11:20 [x.py:1] No available memory for the cache blocks is an error that this start does not have",
)
NAMES = [f"{case['source'].removeprefix('https://github.com/')}-{at}" for at, case in enumerate(RECORDED)]


def known(case: dict[str, Any]) -> Known:
    return Known(case.get("image", ""))


@pytest.mark.parametrize("case", RECORDED, ids=NAMES)
def test_recorded_failures(case: dict[str, Any]) -> None:
    found = diagnose_text(case["engine"], case["log"], known(case))
    if not case["id"]:
        assert found is None, "nothing but consequences"
        return
    assert found
    assert found.id == case["id"]
    assert case["evidence"] in found.evidence
    for part in case["tells"]:
        assert part in f"{found.cause} {found.remedy}"
    for other in case.get("also", ()):
        assert other in case["log"]
        assert other not in found.evidence or case["evidence"] in found.evidence


def test_enough_was_recorded() -> None:
    assert len(RECORDED) >= 40
    assert len([case for case in RECORDED if case.get("also")]) >= 8
    assert len({case["source"] for case in RECORDED if case["source"].startswith("https://")}) >= 40


@pytest.mark.parametrize("case", MADE, ids=lambda case: case["id"])
def test_every_wording_of_every_row(case: dict[str, Any]) -> None:
    log = vllm_failure(case["printed"]) if case["engine"] == "vllm" else case["printed"]
    found = diagnose_text(case["engine"], log)
    assert found
    assert found.id == case["id"]
    assert case["tells"] in f"{found.cause} {found.remedy}"
    assert "{" not in found.cause + found.remedy
    assert found.evidence
    assert "initialization failed" not in found.evidence


def test_every_row_has_a_log_and_every_recorded_one_is_marked_so() -> None:
    told = {(case["engine"], case["id"]) for case in (*RECORDED, *MADE)}
    missing = {
        row.id for engine in ENGINES for row in catalogue(engine) if not any((one, row.id) in told for one in ENGINES)
    }
    assert missing == set()
    texts = [case.get("log") or case["printed"] for case in (*RECORDED, *MADE)]
    unseen = [row for row in ROWS if not any(row.pattern.search(line) for text in texts for line in text.splitlines())]
    assert [row.id for row in unseen] == []
    assert all(case["made"] for case in MADE)
    assert all(case["source"].startswith(("https://github.com/", "lab: ")) for case in RECORDED)


def test_every_row_names_its_source_and_a_range_that_can_be() -> None:
    for row in ROWS:
        assert row.source
        for version in filter(None, (row.since, row.before)):
            assert re.fullmatch(r"\d+\.\d+(\.\d+)?", version)
        assert not (row.since and row.before) or row.is_of(row.since)


# Each row of the facts' catalogue of failures (text as there, shortened) and the ids that answer it.
FACTS = {
    'could not select device driver "nvidia" with capabilities: [[gpu]]': "no-nvidia-runtime",
    "failed to discover GPU vendor from CDI: no known GPU vendor found": "no-cdi-specification",
    "nvidia-container-cli: initialization error: nvml error: driver not loaded": "driver-not-loaded",
    "requirement error: unsatisfied condition: cuda>=12.9, please update your driver": "driver-too-old-for-image",
    "Failed to initialize NVML: Unknown Error": "gpu-lost-in-container",
    "Failed to initialize NVML: Driver/library version mismatch": "driver-library-mismatch",
    "The NVIDIA driver on your system is too old (found version 12020)": "driver-too-old-for-torch",
    "no kernel image is available for execution on the device": "no-kernel-image",
    "Found GPU0 Tesla V100-SXM2-32GB which is of compute capability (CC) 7.0.": "no-kernel-image",
    "Found Tesla P40 which is too old to be supported by the triton GPU compiler": "gpu-too-old",
    "Bfloat16 is only supported on GPUs with compute capability of at least 8.0.": "bfloat16-unsupported",
    "torch.bfloat16 is not supported for quantization method gptq.": "bfloat16-unsupported",
    "The quantization method awq is not supported for the current GPU. Minimum capability: 75. Current capability: 70.": "quantization-unsupported",
    "Free memory on device cuda:0 (1.5/31.73 GiB) on startup is less than desired GPU memory utilization (0.45, 14.28 GiB).": "gpu-memory-not-free",
    "Error in memory profiling. Initial free memory 20.1 GiB, current free memory 25.0 GiB.": "memory-profiling-race",
    "Error in memory profiling. Initial used memory 20.1 GiB": "memory-profiling-race",
    "No available memory for the cache blocks.": "no-memory-for-cache",
    "To serve at least one request with the models's max seq len (8192), (1.0 GiB KV cache is needed, which is larger than the "
    "available KV cache memory (0.5 GiB). Based on the available memory, the estimated maximum model length is 4096.": "context-too-long",
    "max seq len (8192) is larger than the maximum number of tokens that can be stored in KV cache (4096)": "context-too-long",
    "CUDA out of memory. Tried to allocate 1.00 GiB": "gpu-out-of-memory",
    "out of resource: shared memory, Required: 131072, Hardware limit: 98304": "kernel-too-large",
    "Timed out waiting for engine core processes to start": "engine-start-timeout",
    "Invalid repository ID or local directory specified: '/m'": "model-not-found",
    "/m does not appear to have a file named config.json.": "model-not-found",
    "Unrecognized model in /m": "model-not-supported",
    "Model architectures ['X'] are not supported for now.": "model-not-supported",
    "Cannot find any model weights with `/m`": "weights-missing",
    "error while deserializing header": "weights-damaged",
    "SafetensorError: HeaderTooLarge": "weights-damaged",
    "MetadataIncompleteBuffer": "weights-damaged",
    "[Errno 98] Address already in use": "port-taken",
    "Bind for 0.0.0.0:8000 failed: port is already allocated": "port-taken",
    "We couldn't connect to 'https://huggingface.co' to load the files": "hub-unreachable",
    "LocalEntryNotFoundError": "hub-unreachable",
    "You are trying to access a gated repo.": "gated-model",
    "GatedRepoError": "gated-model",
    "RepositoryNotFoundError": "repository-not-found",
    "Not enough free disk space to download the file": "disk-full",
    "Consistency check failed: file should be of size 10 but has size 5": "download-broken",
    "Found ulimit of 1024 and failed to automatically increase": "open-files-limit",
}
FACTS_OLLAMA = {
    "NVIDIA driver too old": "ollama-driver-too-old",
    'model "x" not found, try pulling it first': "ollama-model-missing",
    "llama-server process has terminated: exit status 1": "ollama-runner-died",
    "timed out waiting for llama-server to start - ": "ollama-load-timeout",
    "cudaMalloc failed": "ollama-out-of-memory",
    "failed to allocate CUDA0 buffer": "ollama-out-of-memory",
    "embedding contains NaN or Inf values": "embedding-not-finite",
    'msg="inference compute" id=cpu library=cpu': "ollama-on-cpu",
}
#: Not in any log: the check of an answer finds it. "Engine core initialization failed" and "EngineCore failed to start" are never a cause.
ANSWERED = {'replies "!!!!"': "repeated-character"}


@pytest.mark.parametrize(
    ("engine", "text", "name"),
    [("vllm", *pair) for pair in FACTS.items()] + [("ollama", *pair) for pair in FACTS_OLLAMA.items()],
)
def test_every_row_of_the_facts_is_answered(engine: str, text: str, name: str) -> None:
    found = diagnose_text(engine, text)
    assert found
    assert found.id == name
    page = (Path(__file__).parents[2] / "docs/troubleshooting.md").read_text()
    assert f'<a id="{name}"></a>' in page
    assert all(f'<a id="{other}"></a>' in page for other in ANSWERED.values())


WHOLE = [case for case in RECORDED if case["id"] and case["engine"] != "docker"]


@pytest.mark.parametrize("seed", range(80))
def test_what_stands_around_a_failure_does_not_change_the_verdict(seed: int) -> None:
    dice = random.Random(seed)
    case = dice.choice(WHOLE)
    plain = diagnose_text(case["engine"], case["log"], known(case))
    assert plain
    vllm = case["engine"] == "vllm"
    ordinary = [line for line in (VLLM_FULL_START if vllm else OLLAMA_LOADED).splitlines() if "server up" not in line]
    before = dice.sample(ordinary, 6) + (dice.sample(WARNINGS, 3) if vllm and not plain.hint else [])
    after = dice.sample(ordinary, 4) + (dice.sample(CONSEQUENCES, 4) if vllm else [])
    lines = [*before, *case["log"].strip("\n").splitlines(), *after]
    dressed = "\n".join(_dressed(lines, dice.choice(("plain", "times", "colours", "compose", "journal"))))
    found = diagnose_text(case["engine"], dressed, known(case))
    assert found
    assert (found.id, found.evidence) == (plain.id, plain.evidence)


def _dressed(lines: list[str], how: str) -> list[str]:
    """What `docker logs --timestamps`, a terminal, `docker compose logs` or the journal make of the lines."""
    match how:
        case "times":
            return [f"2026-11-20T10:00:{at % 60:02d}.123456789Z {line}" for at, line in enumerate(lines)]
        case "colours":
            return [re.sub(r"^(\([^)]*\))", "\x1b[0;36m\\1\x1b[0;0m", line) for line in lines]
        case "compose":
            return [f"vllm_llama_gpu0_0  | {line}" for line in lines]
        case "journal":
            return [f"Aug 19 18:34:30 gpu10 vllm[8707]: {line}" for line in lines]
    return lines


@pytest.mark.parametrize(
    ("first", "second"),
    list(
        itertools.permutations(
            (
                "ValueError: No available memory for the cache blocks.",
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
                "OSError: [Errno 28] No space left on device",
                "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/nowhere'.",
                "OSError: We couldn't connect to 'https://huggingface.co' to load the files",
                "torch.AcceleratorError: CUDA error: unspecified launch failure",
            ),
            2,
        )
    ),
)
def test_of_two_causes_the_first_wins(first: str, second: str) -> None:
    alone = diagnose_text("vllm", first)
    both = diagnose_text("vllm", vllm_failure(second, f"ERROR 04-18 10:11:19 [x.py:1] {first}"))
    assert alone
    assert both
    assert both.id == alone.id


def test_consequences_alone_are_no_diagnosis_and_a_cut_off_cause_is_read_from_them() -> None:
    for line in CONSEQUENCES:
        found = diagnose_text("vllm", line)
        assert found is None or "CUDA out of memory" in found.evidence
    rest = diagnose_text("vllm", CONSEQUENCES[4])
    assert rest
    assert rest.id == "gpu-out-of-memory"


def test_a_text_that_changed_its_meaning_is_read_by_the_release() -> None:
    line = "RuntimeError: CUDA error: no kernel image is available for execution on the device"
    newer = diagnose_text("vllm", line, Known("vllm/vllm-openai:v0.33.0"))
    older = diagnose_text("vllm", line, Known("mirror.example/vllm/vllm-openai:v0.19.1@sha256:00"))
    unknown = diagnose_text("vllm", line, Known("example/my-vllm:test"))
    assert newer
    assert older
    assert unknown
    assert "v0.20.0 on has none for V100" in newer.cause
    assert "newer than the release" in older.cause
    assert unknown == newer


def test_an_image_whose_release_is_not_certain_chooses_nothing() -> None:
    assert engine_version("example/vllm-fork:v0.19.1", "vllm").fork
    line = "vllm: error: unrecognized arguments: --task embed"
    for image in ("", "example/vllm-fork:v0.9.2", "vllm/vllm-openai@sha256:00"):
        found = diagnose_text("vllm", line, Known(image))
        assert found
        assert "0.13" in found.cause
    old = diagnose_text("vllm", line, Known("vllm/vllm-openai:v0.9.2"))
    assert old
    assert "0.13" not in old.cause


LLAMA = layout_of(
    {
        "model_type": "llama",
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "hidden_size": 4096,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
    }
)
V100 = round(31.73 * GIB)


def planned(utilization: float, length: int, weights_gib: float = 5.34) -> Prediction:
    settings = CacheSettings(version=(0, 19, 1))
    return predict(
        InstanceMemory(
            "a", LLAMA, round(weights_gib * GIB), length, settings, utilization=utilization, max_num_seqs=16
        ),
        V100,
    )


def advice(error: str, memory: Prediction | None, *before: str) -> str:
    found = diagnose_text("vllm", vllm_failure(error, *before), Known("vllm/vllm-openai:v0.19.1", memory))
    assert found
    return f"{found.cause}; {found.remedy}"


def test_numbers_of_a_cache_without_room_come_from_the_plan_and_from_what_was_measured() -> None:
    error = "ValueError: No available memory for the cache blocks."
    said = advice(
        error, planned(0.2, 8192), "INFO 04-18 10:11:54 [gpu_worker.py:436] Available KV cache memory: -1.25 GiB"
    )
    assert "(1.25 GiB too little)" in said
    share = re.search(r"gpu_memory_utilization to (0\.\d\d)", said)
    assert share
    # 1.25 GiB are missing, one request needs 1 GiB, and a start may have 1.23 GiB less than another: 3.48 of 31.73 GiB more than 0.2
    assert float(share[1]) == pytest.approx(0.2 + 3.48 / 31.73, abs=0.011)
    assert "GiB too little" not in advice(error, None)
    none = "INFO 04-18 10:11:54 [gpu_worker.py:436] Available KV cache memory: -3.10 GiB"
    assert "does not fit on a card of 31.7 GiB" in advice(error, planned(0.9, 8192, weights_gib=30.0), none)
    # measured while a neighbour loaded, as in vllm#55827: the share is not at fault
    race = "INFO 04-18 10:11:54 [gpu_worker.py:436] Available KV cache memory: -3.21 GiB"
    assert "by another program on the card while it measured" in advice(error, planned(0.45, 8192), race)


def test_a_share_that_fits_and_is_too_little_for_the_model_is_told_so() -> None:
    error = "ValueError: Free memory on device cuda:0 ({}/31.73 GiB) on startup is less than desired GPU memory utilization (0.45, 14.28 GiB)."
    assert advice(error.format("13.01"), planned(0.45, 8192)).endswith("at most 0.41 fits now")
    assert "at most 0.09 fits now, which is too little for this model" in advice(
        error.format("3.01"), planned(0.45, 8192)
    )


def test_numbers_of_a_context_that_is_too_long() -> None:
    error = (
        "ValueError: To serve at least one request with the models's max seq len (65536), (8.00 GiB KV cache is needed, which is larger than "
        "the available KV cache memory (7.44 GiB)."
    )
    said = advice(
        error, planned(0.45, 65536), "INFO 04-18 10:11:54 [gpu_worker.py:436] Available KV cache memory: 7.44 GiB"
    )
    assert "at most about 60944" in said
    share = re.search(r"raise gpu_memory_utilization to (0\.\d\d)", said)
    assert share
    assert float(share[1]) == pytest.approx(0.45 + (8 - 7.44 + 1.23) / 31.73, abs=0.011)


def test_memory_that_ran_out_is_told_by_when_and_by_whose_it_is() -> None:
    wanted = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.17 GiB. GPU 0 has a total capacity of 31.73 GiB of which {} is free. Including non-PyTorch memory, this process has {} memory in use."
    loaded = "INFO 04-18 10:11:28 [gpu_model_runner.py:4820] Model loading took 5.35 GiB memory and 12.3 seconds"
    sampler = "RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests. Please try lowering `max_num_seqs`"
    alone = wanted.format("0.30 GiB", "31.20 GiB")
    assert "the weights do not fit" in advice(alone, None)
    assert "lower gpu_memory_utilization or max_num_seqs" in advice(alone, None, loaded)
    assert "lower gpu_memory_utilization to 0.86" in advice(alone, planned(0.9, 8192), loaded)
    assert "max_num_seqs to at most 128" in advice(f"{alone}\n{sampler}", None, loaded)
    assert "other processes hold 20.2 GiB" in advice(wanted.format("300.00 MiB", "11.20 GiB"), None, loaded)


@pytest.mark.parametrize(
    ("error", "shown"), [("KeyError: 'model.layers.0.mlp'", 20), ("OSError: [Errno 28] No space left on device", 12)]
)
def test_a_report_of_an_unknown_failure_says_so_and_shows_more_of_the_log(error: str, shown: int) -> None:
    log = vllm_failure(error)
    target = Target("gpu10", "vllm_a", "vllm", "vllm_a", 11401, "llama3.1-8b")
    found = diagnose_text("vllm", log)
    report = (
        Outcome(target, Verdict.FAILED, 61.0, Progress(Phase.LOADING), found, last_lines(log)).report().splitlines()
    )
    head = report.index("  last lines of vllm_a:")
    assert [line.startswith("    ") for line in report[head + 1 :]].count(True) == shown
    printed = next(line for line in report if line.startswith("  printed"))
    assert error in printed
    assert any("unknown" in line for line in report[:3]) is (shown == 20)


def test_a_stop_that_took_too_long_is_told_from_a_kill() -> None:
    container = Container("id", "exited", 137, 0, "2026-11-20T10:00:00Z", False, "", "no")
    log = (
        VLLM_FULL_START
        + "INFO:     Shutting down\nINFO:     Waiting for connections to close. (CTRL+C to force quit)\n"
    )
    assert death_diagnosis("vllm", container, 137, log).id == "stop-took-too-long"
    assert death_diagnosis("vllm", container, 137, VLLM_FULL_START).id == "killed"


@pytest.mark.parametrize(
    ("code", "killed", "name"),
    [
        (137, False, "killed"),
        (137, True, "host-out-of-memory"),
        (0, False, "ended-without-error"),
        (1, False, "open-files-limit"),
    ],
)
def test_a_warning_does_not_explain_an_end_from_outside(code: int, killed: bool, name: str) -> None:
    """Real vLLM 0.32.0 in the lab prints this at every start."""
    log = VLLM_FULL_START + (
        "(APIServer pid=1) WARNING 11-28 04:45:38 [system_utils.py:255] Found ulimit of 20000 and failed to automatically increase with error "
        "current limit exceeds maximum limit. This can cause fd limit errors like `OSError: [Errno 24] Too many open files`\n"
    )
    container = Container("id", "exited", code, 0, "2026-11-20T10:00:00Z", killed, "", "no")
    assert death_diagnosis("vllm", container, code, log).id == name
