"""The story of a host: from a bare machine to models that answer. Each chapter is a file in tasks/."""

from tasks import base, docker, firewall, gateway, models, nvidia, preflight, readiness, stacks

preflight.verdict()

base.package_sources()
base.packages()
docker.engine()
nvidia.driver()
nvidia.container_toolkit()

models.directories()
models.images()
nvidia.cards_in_containers()
models.files()

firewall.engine_ports()
gateway.first_certificates()
gateway.keys_of_services()
stacks.files()
stacks.containers()
models.ollama_library()
gateway.configuration()
gateway.certificates()

readiness.every_model_answers()
