"""The one way in which a page is made from its template."""

from pathlib import Path
from typing import Any

import jinja2


def filled(template: str, **values: Any) -> str:
    """The template of this room with the values; all of them are escaped but what is Markup already.

    Raises jinja2.UndefinedError where the template names a value that is not given.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
