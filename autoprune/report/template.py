"""The one way in which a page is made: from results, by a template of this room."""

from pathlib import Path
from typing import Any

import jinja2

from autoprune.report.drawing import COLOURS


def page(template: str, **values: Any) -> str:
    """The page as text; all values are escaped but what is Markup already: our own drawings.

    Args:
        template: One of this room, which extends base.html.jinja.
        values: What it shows; every page has a `title`, a line `above` its `headline`, and paragraphs below, `lead`.

    Raises:
        jinja2.UndefinedError: the template names a value that is not given.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(colours=COLOURS, **values)
