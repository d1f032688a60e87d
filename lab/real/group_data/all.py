"""What differs when the lab's default fleet runs on real vLLM for CPU: the image, its profile, and models that a CPU can serve.

`lab/run --real` names this directory after lab/group_data. Hosts, instances, ports and arguments stay those of the default fleet.
"""

import tomllib as _tomllib
from pathlib import Path as _Path
from runpy import run_path as _run_path

_here = _Path(__file__).resolve()
_default = _run_path(str(_here.parents[3] / "group_data/all.py"))
_engine = _tomllib.loads((_here.parents[1] / "engines.toml").read_text(encoding="utf-8"))["vllm-cpu"]

versions = {**_default["versions"], "vllm": f"{_engine['name']}:{_engine['tags'][0]}"}
profiles = {"vllm": "vllm-cpu"}

# Real architectures and tokenizers, random weights (lab/models/tiny.py), served under the names of the default fleet.
models = {
    **_default["models"],
    "llama3.1-8b": {"repository": "stoker-lab/tiny-llama", "directory": "tiny-llama"},
    "qwen2.5-14b": {"repository": "stoker-lab/tiny-qwen2", "directory": "tiny-qwen2"},
}
