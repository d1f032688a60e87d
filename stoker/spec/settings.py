"""Settings of the site: versions, mirrors, proxy, Docker, driver, models. Read from ``group_data/all.py``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails

from stoker.engine.registry import NAMES, engine_of
from stoker.spec.base import AbsolutePath, EnvironmentName, FileName, Image, ModelName, Network, Spec, Url, form

Version = Annotated[str, form(r"^[0-9][0-9A-Za-z.+~:-]*$", "a version that begins with a digit, for instance 28.5.2")]
Size = Annotated[str, form(r"^[1-9][0-9]*[kmg]$", "a number with k, m or g, for instance 50m")]
#: A port may stand after the registry's host, a tag nowhere.
ImageName = Annotated[
    str, form(r"^(?:[^@\s/]+/)*[^@:/\s]+$", "an image's name without tag and digest, for instance registry.lan/vllm")
]
Fingerprint = Annotated[str, form(r"^[0-9A-F]{40}$", "the key's fingerprint: 40 digits 0-9 A-F without spaces")]


class Versions(Spec):
    """Everything that is pinned. The reasons stand beside the values in ``group_data/all.py``.

    Beside the fields an image for each engine that is used, under the engine's name.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    __pydantic_extra__: dict[str, Image]

    nginx: Image
    #: Only where a stack has a `web_ui`.
    open_webui: Image | None = None
    docker: Version
    compose: Version
    container_toolkit: Version
    driver_branch: int = Field(ge=470, le=999)

    @model_validator(mode="before")
    @classmethod
    def _only_engines(cls, data: object) -> object:
        if isinstance(data, dict):
            unknown = [name for name in data if name not in cls.model_fields and name not in NAMES]
            if unknown:
                wrong = [InitErrorDetails(type="extra_forbidden", loc=(name,), input=data[name]) for name in unknown]
                raise ValidationError.from_exception_data("Versions", wrong)
        return data

    @property
    def engines(self) -> dict[str, str]:
        """Engine -> its image."""
        return dict(self.__pydantic_extra__ or {})

    def of(self, engine: str) -> str:
        """Raises KeyError for an engine without a version, which the checks of a description refuse."""
        return self.engines[engine]


#: As it stands before an image's name; behind a host there may be a path.
Registry = Annotated[
    str,
    form(
        r"^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*$", "a registry as it stands in an image's name, for instance ghcr.io"
    ),
]


class Mirrors(Spec):
    """Where downloads come from. Each default is the publisher's own address."""

    docker: Url = "https://download.docker.com/linux"
    #: Fingerprint of the key that signs the Docker repository.
    docker_key: Fingerprint = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
    container_toolkit: Url = "https://nvidia.github.io/libnvidia-container"
    container_toolkit_key: Fingerprint = "C95B321B61E88C1809C4F759DDCAE044F796ECB0"
    #: NVIDIA's repositories of drivers, one directory for each release; only for `install_driver` on Debian.
    cuda: Url = "https://developer.download.nvidia.com/compute/cuda/repos"
    #: Fingerprint of the key that signs them; None is NVIDIA's key for the host's release.
    cuda_key: Fingerprint | None = None
    #: Pull-through mirrors of Docker Hub, tried in order before Docker Hub itself.
    registries: tuple[Url, ...] = ()
    #: Other registries -> where their images are pulled from instead, for instance {"ghcr.io": "ghcr.example.org"}.
    images: dict[Registry, Registry] = {}
    hub: Url = "https://huggingface.co"
    #: Index of Python packages (PEP 503), for the images that are built on the hosts.
    python: Url = "https://pypi.org/simple"
    #: Registry of Ollama models; None is Ollama's own. Without TLS (http://) Ollama is told to accept that.
    ollama: Url | None = None

    @field_validator("registries", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


class Proxy(Spec):
    """An HTTP proxy for downloads on the hosts: packages, images, models. Of the engines only Ollama gets it, which downloads itself."""

    http: Url | None = None
    https: Url | None = None
    no_proxy: tuple[str, ...] = ("localhost", "127.0.0.1")

    @field_validator("no_proxy", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


class Docker(Spec):
    """The container engine of a host."""

    #: ``docker-ce``: Docker's own packages. ``distribution``: docker.io and Compose of the distribution.
    source: Literal["docker-ce", "distribution"] = "docker-ce"
    #: Log rotation of every container: size of a file and number of files.
    log_max_size: Size = "50m"
    log_max_file: int = Field(default=3, ge=1, le=100)
    #: Open files of a container. vLLM needs more than the 1024 that newer Docker gives.
    open_files: int = Field(default=65536, ge=1024, le=1048576)
    #: Anything else for /etc/docker/daemon.json, merged over what is there.
    daemon: dict[str, object] = {}

    @property
    def gpus_by_cdi(self) -> bool:
        """The distributions' Docker and Compose are too old for CDI; there NVIDIA's runtime hook gives the GPUs."""
        return self.source == "docker-ce"

    @field_validator("daemon")
    @classmethod
    def _not_ours(cls, value: dict[str, object]) -> dict[str, object]:
        ours = sorted({"log-driver", "log-opts", "features", "exec-opts"} & set(value))
        if ours:
            raise ValueError(f"{', '.join(ours)} is set by Stoker itself; use log_max_size and log_max_file")
        return value


class Nvidia(Spec):
    """The driver of a host."""

    #: Install the driver packages of the pinned branch where none is installed, and reboot the host once if they need it.
    install_driver: bool = False


class Keys(Spec):
    """Names of environment variables on the control machine that hold secrets. Never the secrets themselves."""

    hub: EnvironmentName | None = None


class FilesModel(Spec):
    """A model of files in a directory."""

    #: Below the stack's model directory.
    directory: FileName
    #: For engines that read one file (llama.cpp): its name, or that of the first part of several.
    file: (
        Annotated[str, form(r"^[A-Za-z0-9][\w.-]*\.gguf$", "the name of a .gguf file, without a directory")] | None
    ) = None
    #: Further names under which it may be asked for; gateways know them all, and engines that can have several get them too.
    aliases: tuple[ModelName, ...] = ()
    #: Of an embedding model: length of its vectors, for the readiness and smoke checks, and for whoever changes the model.
    dimensions: int | None = Field(default=None, ge=1, le=65536)

    @field_validator("aliases", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @property
    def origin(self) -> str:
        """What is served, so that something else under the same name is told from it."""
        return f"local:{self.directory}"


class HubModel(FilesModel):
    """A model that is downloaded from a hub."""

    repository: Annotated[str, form(r"^[\w.-]+/[\w.-]+$", "OWNER/NAME as the hub shows it")]
    revision: Annotated[str, form(r"^[\w./-]+$", "a branch, a tag or a commit")] = "main"
    #: Files that are not needed, as patterns (``*.pth``).
    exclude: tuple[str, ...] = ("original/*", "onnx/*", "imgs/*", "*.pth", "*.gguf")

    @field_validator("exclude", mode="before")
    @classmethod
    def _patterns(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @property
    def origin(self) -> str:
        return f"{self.repository}@{self.revision}"


class LocalModel(FilesModel):
    """A model whose files a person put on the host; nothing is downloaded, and a deploy looks whether all of it is there."""


class OllamaModel(Spec):
    """A model of the Ollama library, served under a name of its own with the parameters given.

    Pulled under one name and created under another, so that neither overwrites the other.
    """

    #: What is pulled: ``name:tag``, a tag other than ``latest``.
    library: Annotated[
        str, form(r"^[a-z0-9][a-z0-9._/-]*:[A-Za-z0-9][A-Za-z0-9._-]*$", "NAME:TAG, for instance bge-m3:567m")
    ]
    parameters: dict[str, int] = {}
    #: Length of the vectors, for the readiness and smoke checks.
    dimensions: int = Field(ge=1, le=65536)

    @property
    def origin(self) -> str:
        return self.library

    @model_validator(mode="after")
    def _pinned_tag(self) -> OllamaModel:
        if self.library.endswith(":latest"):
            raise ValueError("`latest` is the name under which the model is served; pull a versioned tag")
        return self


#: Tag -> the kinds of models. The tag stands in the location of an error, after the model's name.
MODEL_KINDS: dict[str, type[Spec]] = {"hub": HubModel, "ollama": OllamaModel, "local": LocalModel}


def _kind_of_model(value: object) -> str:
    """Chosen by its keys, so that errors speak of one kind and not of all."""
    for kind, made in MODEL_KINDS.items():
        if isinstance(value, made):
            return kind
    if isinstance(value, dict) and "library" in value:
        return "ollama"
    return "local" if isinstance(value, dict) and value and value.keys() <= LocalModel.model_fields.keys() else "hub"


#: Any kind of model.
AnyModel = HubModel | OllamaModel | LocalModel

Model = Annotated[
    Annotated[HubModel, Tag("hub")] | Annotated[OllamaModel, Tag("ollama")] | Annotated[LocalModel, Tag("local")],
    Discriminator(_kind_of_model),
]


class Settings(Spec):
    """Everything from group_data but the stacks."""

    versions: Versions
    models: dict[ModelName, Model]
    mirrors: Mirrors = Mirrors()
    proxy: Proxy = Proxy()
    docker: Docker = Docker()
    nvidia: Nvidia = Nvidia()
    keys: Keys = Keys()
    #: Engine -> the build of it that the images hold, where it is not the one for NVIDIA cards.
    profiles: dict[str, str] = {}
    #: Image without its tag -> GiB that it takes on disk, where Stoker's table has no figure, or another one.
    image_gib: dict[ImageName, Annotated[float, Field(ge=0, le=1024)]] = {}
    #: ``engines``: the instances' ports are open to the gateways that use them and to the host itself only.
    firewall: Literal["off", "engines"] = "off"
    #: Who may use the instances' ports besides, for instance a monitoring server.
    engine_networks: tuple[Network, ...] = ()
    #: Only the gateways may be used, and only with a key: closes the engines' ports, and refuses a gateway without keys.
    strict: bool = False
    #: Where compose files and gateway configuration live: one directory per project below it.
    stack_root: AbsolutePath = "/opt/stoker"
    #: Seconds that one engine may take from its start to its first answer, however it gets on. vLLM is told the same and gives up
    #: by itself then, so another value makes new containers.
    ready_timeout: int = Field(default=1800, ge=10, le=86400)
    #: Seconds that one engine may load without any progress. A first compilation on a V100 is silent for up to three minutes, one
    #: 15 GB file from a disk of 30 MB/s for eight.
    ready_stall_timeout: int = Field(default=600, ge=10, le=86400)

    def image(self, name: str) -> str:
        """An image as it is pulled here: from a mirror where its registry has one."""
        registry, slash, rest = name.partition("/")
        mirror = self.mirrors.images.get(registry) if slash else None
        return f"{mirror}/{rest}" if mirror else name

    @field_validator("engine_networks", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="before")
    @classmethod
    def _strict_closes_the_engines(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("strict") is True:
            if data.get("firewall") == "off":
                raise ValueError("`strict` closes the engines' ports; remove `firewall`, or remove `strict`")
            return {**data, "firewall": data.get("firewall", "engines")}
        return data

    @field_validator("ready_stall_timeout")
    @classmethod
    def _before_the_ceiling(cls, value: int, info: ValidationInfo) -> int:
        ceiling = info.data.get("ready_timeout", value)
        if value > ceiling:
            raise ValueError(
                f"it would never count: ready_timeout ends the wait after {ceiling} s; make it smaller, or raise that"
            )
        return value

    @field_validator("models")
    @classmethod
    def _each_name_once(cls, models: dict[str, Model]) -> dict[str, Model]:
        owners = {name.removesuffix(":latest"): name for name in models}
        for name, model in models.items():
            aliases = model.aliases if isinstance(model, FilesModel) else ()
            for alias in aliases:
                owner = owners.setdefault(alias.removesuffix(":latest"), f"{name}'s alias")
                if owner != f"{name}'s alias" or aliases.count(alias) > 1:
                    raise ValueError(f"the alias {alias} of {name} is taken by {owner}; give each name once")
        return models

    @field_validator("profiles")
    @classmethod
    def _of_that_engine(cls, value: dict[str, str]) -> dict[str, str]:
        for engine, name in value.items():
            if engine not in NAMES:
                raise ValueError(f"{engine!r} is no engine; write one of {', '.join(NAMES)}")
            if name not in engine_of(engine).profiles:
                ways = ", ".join(f"{key} ({one.runs_on})" for key, one in engine_of(engine).profiles.items())
                raise ValueError(f"{name!r} is no profile of {engine}; write one of {ways}")
        return value
