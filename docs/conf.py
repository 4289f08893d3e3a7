"""The documentation site: `make docs` builds it, runs every tutorial, and fails on a warning."""

import os
import sys
from itertools import islice
from pathlib import Path

import rvelens

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "rvelens"
author = "The rvelens authors"
copyright = author
version = release = rvelens.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    # Ours, in _ext: what pages take from the package and the folder, and how docstrings read.
    "fill",
    "docstrings",
    "mathml",
    "notebooks",
]
exclude_patterns = ["_build", "errors_explained.md"]  # the latter is part of errors.md

# Tutorials are MyST notebooks: text files whose code cells run on every build.
nb_execution_mode = "force"
nb_execution_timeout = 300  # a machine that does other things too
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_show_tb = True
# Cells run without widgets and network: no progress bars, nor tqdm's word about them.
os.environ |= {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",  # two pages run at once
    "PYTHONWARNINGS": "ignore:IProgress not found",
    "TQDM_DISABLE": "1",
}
# What a cell writes to stderr would be on the page: a warning, hence an error.
nb_output_stderr = "warn"
nb_merge_streams = True
nb_render_markdown_format = "myst"

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True  # as the source writes them
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
napoleon_numpy_docstring = False
# A message that is pasted into the search has straight quotes.
smartquotes = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature has them
# A name in `backticks` links to what it names, if the site has it; else it is code.
default_role = "py:obj"
# References within the package are checked; other projects' pages are on the network.
nitpicky = True
nitpick_ignore_regex = [("py:obj", ".*"), ("py:(?!obj).*", r"(?!rvelens\.).*")]

copybutton_exclude = ".linenos, .gp, .go"

html_math_renderer = "mathml"
html_copy_source = False
html_theme = "furo"
html_title = "rvelens"
html_static_path = ["_static"]
# Pages that studies wrote, shown within the site's.
html_extra_path = sorted(str(path) for path in Path(__file__).parent.glob("studies/*/*.html"))
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_theme_options = {
    "light_logo": "lens.svg",
    "dark_logo": "lens-dark.svg",
    "light_css_variables": {
        "color-brand-primary": "#1c4587",
        "color-brand-content": "#1c4587",
    },
    "dark_css_variables": {
        "color-brand-primary": "#f2c94c",
        "color-brand-content": "#8ab4f8",
    },
}


def setup(app):
    """Called by Sphinx."""
    app.connect("env-before-read-docs", spread)


def spread(app, env, docnames):
    """Pages that run code come early, others between: two processes get as many of them each."""
    texts = {name: Path(env.doc2path(name)).read_text("utf-8") for name in docnames}
    running = [name for name in docnames if "file_format: mystnb" in texts[name][:100]]
    others = iter([name for name in docnames if name not in running])
    docnames[:] = [n for name in running for n in (name, *islice(others, 2))] + list(others)
