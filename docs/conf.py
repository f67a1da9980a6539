"""Sphinx: `make docs`.  One line of reason for each choice that another project would make otherwise."""

import importlib
import re
from pathlib import Path

import diffcls

HERE = Path(__file__).parent
(HERE / "notebooks").mkdir(exist_ok=True)
for notebook in (HERE.parent / "notebooks").glob(
    "*.ipynb"
):  # copies: of what lies elsewhere in the checkout the words stay
    text = notebook.read_text().replace("](../docs/", "](../")
    (HERE / "notebooks" / notebook.name).write_text(
        re.sub(r"\[([^\]\n]+)\]\(\.\./(?:benchmarks|diffcls)/[^)]*\)", r"\1", text)
    )

project = "diffcls"
author = "the diffcls authors"
copyright = "the diffcls authors, Apache-2.0"
version = release = diffcls.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",  # a page a name, made from the package: nothing is listed twice
    "sphinx.ext.doctest",  # beside pytest's, it knows where a fence of Markdown ends
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",  # the source is part of the reference: formulas are read there
    "numpydoc",  # napoleon reads the same text; numpydoc is what NumPy, SciPy and scikit-learn render and check it with
    "myst_nb",  # Markdown and notebooks by one parser; myst-parser alone has no notebooks
    "sphinx_copybutton",
]
html_theme = "pydata_sphinx_theme"  # NumPy's, SciPy's, pandas' and scikit-learn's: their readers know where things are
html_title = "diffcls"
html_theme_options = {
    "navigation_depth": 2,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"*": []}  # pages of the first level have the bar above
html_show_sourcelink = False
html_copy_source = False
templates_path = ["_templates"]
exclude_patterns = ["_templates"]

default_role = "py:obj"  # `name` in a docstring is a link where there is such a name, else code
autosummary_generate = True
autosummary_context = {  # what a module lists once more is on the page of `diffcls` itself
    "again": [
        f"{module.__name__}.{name}"
        for module in (importlib.import_module(f"diffcls.{name}") for name in (*diffcls._MODULES, *diffcls._EXTRAS))
        for name in getattr(module, "__all__", ())
        if name in diffcls._HOME and getattr(diffcls, name) is getattr(module, name)
    ]
}
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say types with shapes, in words
maximum_signature_line_length = 100
numpydoc_show_class_members = False  # autosummary's template lists them
numpydoc_xref_param_type = False

nb_execution_mode = "off"  # the tests run the notebooks; here are their stored outputs
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

doctest_global_setup = """
import os, tempfile
import numpy as np
import diffcls
_folder = tempfile.TemporaryDirectory()
_back = os.getcwd()
os.chdir(_folder.name)
"""
doctest_global_cleanup = "os.chdir(_back)"


def _escape(app, what, name, obj, options, lines):
    """``(B, *shape)`` outside of literals is no emphasis."""
    for i, line in enumerate(lines):
        parts = line.split("``")
        parts[::2] = [re.sub(r"(?<![\\\\*\w])\*shape", r"\\*shape", part) for part in parts[::2]]
        lines[i] = "``".join(parts)


def setup(app):
    app.connect("autodoc-process-docstring", _escape, priority=100)
