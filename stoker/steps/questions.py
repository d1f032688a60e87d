"""What has to be asked of a host: everything that its steps decide by."""

from __future__ import annotations

from stoker.engine.registry import engine_of
from stoker.facts import identity
from stoker.facts.paths import HOST_LOCKS
from stoker.facts.probe import HttpProbe, Questions
from stoker.facts.state import HostState
from stoker.plan import local_models
from stoker.ready.load_record import LOADS
from stoker.spec.fleet import Fleet, Host
from stoker.steps import (
    acme,
    base,
    build,
    docker,
    driver,
    driver_hold,
    firewall,
    gateway,
    images,
    layout,
    models,
    ollama,
    packages,
    service_keys,
    sources,
    stack,
    toolkit,
)
from stoker.steps.layout import READY


def questions(fleet: Fleet, host: Host) -> Questions:
    wanted: list[packages.Package] = [*base.packages(host), *toolkit.packages(host)]
    wanted += [packages.Package(name) for name in docker.known_packages()]
    # Names differ between distributions; asking for all of them costs nothing.
    for os_id in ("debian", "ubuntu"):
        wanted += docker.packages(host, HostState(os_id=os_id))
    wanted += [packages.Package(pattern) for pattern in driver_hold.PATTERNS]
    names = [instance.name for _, instance in host.instances()]
    files = [
        *sources.files(),
        *toolkit.files(),
        *layout.directories(host),
        driver_hold.PIN,
        identity.RECORD,
        *(file.path for file in layout.tools(host)),
        *ollama.files(host),
        *firewall.files(),
    ]
    for entry in host.stacks:
        files += stack.paths(fleet, host, entry)
    proofs = [images.proof_path(engine, image) for image, (engine, _) in images.proofs(host).items()]
    contents = [
        docker.DAEMON_JSON,
        driver.MARKER,
        identity.RECORD,
        toolkit.CDI,
        *sources.contents(),
        *models.manifests(host),
        *local_models.configuration_files(host),
        *ollama.contents(host),
        *proofs,
    ]
    contents += [f"{directory}/{name}" for name in names for directory in (READY, LOADS)]
    contents += [stack.embeddings_note(host, entry) for entry in host.stacks]
    contents += [path for entry in host.stacks for path in gateway.contents(entry)]
    http = [probe for entry in host.stacks if (probe := gateway.probe(entry))]
    for _, instance in host.instances():
        path = engine_of(instance.engine).health_path
        http.append(HttpProbe(instance.name, f"http://127.0.0.1:{instance.port}{path}"))
    return Questions(
        packages=sorted({package.name for package in wanted}),
        files=[*dict.fromkeys(files)],
        file_patterns=[f"{HOST_LOCKS}/*.lock", *service_keys.patterns()],
        contents=contents,
        units=[docker.UNIT, toolkit.PERSISTENCE, firewall.UNIT, *acme.units(host)],
        images=[*host.images(), *build.bases(host)],
        built=build.own_images(host),
        # Where images are, or will be, kept: the data-root, or containerd's own directory. The probe adds the daemon's word.
        disks=[
            *dict.fromkeys(
                (
                    "/var/lib",
                    "/var/lib/docker",
                    "/var/lib/containerd",
                    *(entry.model_directory for entry in host.stacks if entry.model_directory),
                )
            ),
            *([str(root)] if (root := host.settings.docker.daemon.get("data-root")) else []),
        ],
        apt_sources=sources.addresses(host),
        model_directories=[*models.wanted(host), *local_models.described(host)],
        http=http,
    )
