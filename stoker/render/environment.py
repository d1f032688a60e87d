"""The one Jinja2 environment that every template is rendered with."""

from __future__ import annotations

import functools
from pathlib import Path

import jinja2

#: templates/ stands beside the package, for people to read and edit.
TEMPLATES = Path(__file__).resolve().parents[2] / "templates"


@functools.cache
def environment() -> jinja2.Environment:
    """Undefined variables are errors, nothing is escaped (no HTML here), blocks leave no blank lines."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **values: object) -> str:
    """Render a template, named by its path under templates/.

    Raises jinja2.UndefinedError when the template uses a value that is not given.
    """
    return environment().get_template(template).render(**values)
