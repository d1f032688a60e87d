"""Directories, images and model files."""

from pyinfra import host

from stoker.operations.converge import converge
from stoker.run.session import session
from stoker.steps import images as image_steps
from stoker.steps import layout, ollama
from stoker.steps import models as model_steps


def directories() -> None:
    run = session()
    described = run.fleet.host(host.name)
    converge(name="Directories", run=run, step=lambda state: layout.actions(described, state))


def images() -> None:
    run = session()
    described = run.fleet.host(host.name).only(run.only)
    converge(name="Images", run=run, step=lambda state: image_steps.actions(described, state))


def files() -> None:
    run = session()
    described = run.fleet.host(host.name).only(run.only)
    token = run.hub_token(host.name)
    converge(name="Model files", run=run, step=lambda state: model_steps.actions(described, state, token))


def ollama_library() -> None:
    run = session()
    described = run.fleet.host(host.name).only(run.only)
    converge(name="Ollama models", run=run, step=lambda state: ollama.actions(described, state))
