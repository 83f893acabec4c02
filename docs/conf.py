"""The site's configuration."""

from importlib.metadata import version as installed_version

project = "convkernels"
author = "The convkernels developers"
copyright = "2026, The convkernels developers"  # noqa: A001  # Sphinx's name for it
version = release = installed_version("convkernels")

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx_copybutton",
]
html_theme = "furo"
html_title = f"convkernels {release}"
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "dollarmath"]

autosummary_generate = True
numpydoc_show_class_members = False
# The four ranks of a function differ in nothing but their name and layout, which the signature shows.
autodoc_typehints = "none"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
