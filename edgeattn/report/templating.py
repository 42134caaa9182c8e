"""The Jinja2 environment of the HTML report."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from edgeattn.report.check_descriptions import describe, percent_of_limit, title
from edgeattn.report.number_formats import format_number, format_size

if TYPE_CHECKING:
    from jinja2 import Environment

# A verdict has a sign and a word, so that color is never the only difference.
VERDICT_SIGNS = {"pass": "✓", "fail": "✗", "inconclusive": "?", "not run": "–"}


def render_template(name: str, **values: Any) -> str:
    """Render a file of ``templates/``. Values are escaped unless the template marks them safe."""
    return _environment().get_template(name).render(**values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("edgeattn.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": format_number,
        "size": format_size,
        "check_title": title,
        "check_result": describe,
        "percent_of_limit": percent_of_limit,
    }
    environment.globals["signs"] = VERDICT_SIGNS
    return environment
