"""Sphinx settings of the documentation site. `make docs` builds it into docs/_build, with every warning an error."""

import sys
from pathlib import Path

from captrain.version import __version__

sys.path.insert(0, str(Path(__file__).parent / "_extension"))

project = "captrain"
author = "the captrain contributors"
copyright = "the captrain contributors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "reference_pages"]
exclude_patterns = ["_build", "_extension"]
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3
myst_links_external_new_tab = True
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = f"captrain {__version__}"
html_static_path = ["_static"]
html_css_files = ["captrain.css"]
html_copy_source = html_show_sourcelink = html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5f6b", "color-brand-content": "#0b5f6b"},
    "dark_css_variables": {"color-brand-primary": "#6fd0dd", "color-brand-content": "#6fd0dd"},
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
copybutton_prompt_text = ">>> |\\.\\.\\. "
copybutton_prompt_is_regexp = True

default_role = "code"  # docstrings have `code` in single backticks
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
maximum_signature_line_length = 88
trim_doctest_flags = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Types in signatures: those of other packages, and captrain's own below its public names, have no page to link to.
nitpick_ignore_regex = [("py:(class|data|obj)", r".*")]
