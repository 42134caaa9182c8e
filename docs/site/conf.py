"""Sphinx configuration of the documentation site: `make site` writes it to .out/site.

The pages are the Markdown files of the repository, which link to each other as on a code host.
"""

import inspect
import os
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path[:0] = [str(path) for path in (FOLDER, FOLDER.parents[1], FOLDER.parents[1] / "converters")]

import navigation  # noqa: E402
from sphinx.util.inspect import stringify_signature  # noqa: E402

from edgeattn.version import __version__  # noqa: E402

project = "edgeattn"
release = version = __version__
copyright = "The edgeattn authors"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/experiments/*.md",
    "docs/site/python/*.rst",
    "benchmarks/README.md",
    "examples/**README.md",
    "sample_models/**README.md",
    "tests/specimens/README.md",
]
exclude_patterns = [".*", "build", "dist", "tests/[!s]*", "edgeattn", "converters"]

myst_heading_anchors = 4
highlight_language = "text"
# Keras, which the layers derive from, without the seconds that TensorFlow takes to start.
os.environ["KERAS_BACKEND"] = "jax"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_custom_sections = [("Call arguments", "params_style")]
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = "edgeattn"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_additional_pages = {"index": "index.html"}
templates_path = ["templates"]
html_copy_source = False
html_show_sphinx = False


def append_navigation(app: Any, page: str, source: list[str]) -> None:
    source[0] += navigation.appended_directives(page)


def readable_signature(*event: Any) -> tuple[str, str] | None:
    """The signature that Keras hides, and none of the markers that Sphinx cannot parse."""
    _, _, _, value, _, signature, result = event
    if signature == "(*args, **kwargs)":
        declared = inspect.signature(value.__init__)
        _, *parameters = declared.parameters.values()
        return stringify_signature(inspect.Signature(parameters)), ""
    return signature and (signature.replace("<factory>", "..."), result)


def setup(app: Any) -> None:
    app.connect("source-read", append_navigation)
    app.connect("autodoc-process-signature", readable_signature)
