"""vLLM and the model's files: what is missing, damaged, not known, or not to be had from the hub.

Texts of vLLM 0.8.5 to 0.33, huggingface_hub 0.23 to 0.36, transformers 4.36 to 5, safetensors 0.4 to 0.7.
"""

from __future__ import annotations

import re

from stoker.ready.failure import Failure

_HUB = "huggingface_hub 0.36: errors.py, file_download.py"


MODEL_FAILURES: tuple[Failure, ...] = (
    Failure(
        id="gated-model",
        pattern=re.compile(
            r"You are trying to access a gated repo|GatedRepoError|Cannot access gated repo|Access to model (?P<model>\S+) is restricted"
        ),
        cause="the model needs an accepted licence and a token",
        remedy="accept the licence on the model's page and give Stoker the token as a secret (HF_TOKEN)",
        source=f"{_HUB}; sgl-project/sglang#14644, huggingface/optimum-neuron#535",
    ),
    Failure(
        id="repository-not-found",
        pattern=re.compile(
            r"RepositoryNotFoundError|Repository Not Found for url|is not a local folder and is not a valid model identifier"
        ),
        cause="the hub has no repository of that name, or it is private",
        remedy="correct the model's repository name",
        source=_HUB,
    ),
    Failure(
        id="hub-token",
        pattern=re.compile(r"Invalid (?:user token|credentials in Authorization header)"),
        cause="the hub does not accept the token",
        remedy="give Stoker a token that is valid (HF_TOKEN), with the right to read",
        source=_HUB,
    ),
    Failure(
        id="gated-model",
        pattern=re.compile(r"401 Client Error"),
        cause="the hub wants a token for this model",
        remedy="check the repository's name; if it is right, accept the licence on the model's page and give Stoker the token as a secret (HF_TOKEN)",
        source="hyperonym/basaran#289: the line before the one that says why",
        sign=True,
    ),
    Failure(
        id="hub-unreachable",
        pattern=re.compile(
            r"We couldn't connect to '(?P<url>[^']+)'|LocalEntryNotFoundError|OfflineModeIsEnabled|Max retries exceeded with url"
        ),
        cause="the model is not complete on the host and the hub cannot be reached",
        remedy="let the deploy fetch the model (it sets a mirror and verifies), or copy the files into the model directory",
        source=f"{_HUB}; vllm#12673",
        heals=True,
    ),
    Failure(
        id="download-broken",
        pattern=re.compile(
            r"Consistency check failed: file should be of size (?P<want>\d+) but has size (?P<have>\d+)"
        ),
        cause="a downloaded file is not complete: {have} of {want} bytes",
        remedy="delete the file on the host and deploy again",
        source=_HUB,
        heals=True,
    ),
    Failure(
        id="weights-damaged",
        pattern=re.compile(
            r"[Ee]rror while deserializing header|HeaderTooLarge|HeaderTooSmall|InvalidHeader|MetadataIncompleteBuffer|"
            r"PytorchStreamReader failed|invalid load key, 'v'"
        ),
        cause="a weights file is cut short or is a Git-LFS pointer",
        remedy="delete it on the host and deploy again: the deploy checks sizes and checksums and fetches what is wrong",
        source="safetensors: SafetensorError; QwenLM/Qwen3-VL#559, soulteary/docker-llama2-chat#1",
    ),
    Failure(
        id="weights-missing",
        pattern=re.compile(r"Cannot find any model weights with"),
        cause="the model directory holds no weights",
        remedy="deploy again to fetch them; models with pytorch_model.bin only (bge-m3) must not have *.bin excluded",
        source="vLLM's wheels 0.8.5 to 0.33: model_loader/default_loader.py; vllm#4333",
    ),
    Failure(
        id="weights-of-another-model",
        pattern=re.compile(
            r"There is no module or parameter named '?(?P<name>[^' ]+)'? in|Following weights were not initialized from checkpoint|"
            r"no module named '(?P<name2>[\w.]+)' in \w+For"
        ),
        cause="the weights are not those of the model that config.json describes{which}",
        remedy="delete the model's directory on the host and deploy again; a fine-tune must be saved with the base model's names",
        source="vLLM's wheels 0.8.5 to 0.33: model_executor/models/utils.py; vllm#32584",
        numbers=lambda got, _: {
            "which": f" ({name} has no place in it)" if (name := got["name"] or got["name2"]) else ""
        },
    ),
    Failure(
        id="model-not-found",
        pattern=re.compile(
            r"Invalid repository ID or local directory specified: '?(?P<path>[^'\n]+?)'?(?:\.|$)|"
            r"(?P<path2>\S{1,300}) does not appear to have a file named (?P<file>config\.json)|No such file or directory: '(?P<path3>\S*config\.json)'|"
            # With HF_HUB_OFFLINE, as Stoker sets it, a path that is not there is taken for a repository.
            r"HFValidationError: Repo id must .*?: '(?P<path4>/[^']+)'"
        ),
        cause="there is no usable model at {which}",
        remedy="check the instance's model and the mounted directory; deploy again to fetch and verify the files",
        source="vLLM's wheels 0.8.5 to 0.33: transformers_utils/config.py; huggingface_hub 0.36",
        numbers=lambda got, _: {"which": got["path"] or got["path2"] or got["path3"] or got["path4"]},
    ),
    Failure(
        id="tokenizer-missing",
        pattern=re.compile(
            r"Can't load tokenizer for '(?P<path>[^']+)'|Couldn't instantiate the backend tokenizer|"
            r"(?P<path2>\S{1,300}) does not appear to have (?:a file named|files named \()\W*(?:tokenizer|vocab|spiece|sentencepiece)"
        ),
        cause="the model's tokenizer is not complete{which}",
        remedy="deploy again to fetch and verify the files; tokenizer.json and tokenizer_config.json belong to them",
        source="transformers 4.36 to 5: tokenization_utils_base.py",
        numbers=lambda got, _: {"which": f" at {path}" if (path := got["path"] or got["path2"]) else ""},
    ),
    Failure(
        id="model-not-supported",
        pattern=re.compile(
            r"Unrecognized model in|Model architectures? .*(?:are|is) not supported for now|does not recognize this architecture|"
            r"No model architectures are specified"
        ),
        cause="this vLLM does not know the model's architecture",
        remedy="choose another model, or a newer image where the GPU allows it (V100: not beyond v0.19.1)",
        source="vLLM's wheels 0.8.5 to 0.33: model_executor/models/registry.py; PaddlePaddle/PaddleOCR#17171, vllm#9515",
    ),
    Failure(
        id="remote-code-needed",
        pattern=re.compile(r"contains custom code which must be executed to correctly load the model"),
        cause="the model brings Python code of its own, which Stoker does not run by default",
        remedy="choose a model that vLLM supports itself; trust_remote_code runs the repository's code in the container",
        source="transformers 4.36 to 5: dynamic_module_utils.py",
    ),
)
