"""The site's configuration."""

from functools import partial
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
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
html_theme = "furo"
html_math_renderer = "mathml"  # which browsers draw themselves, without a script from elsewhere
html_title = f"convkernels {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
exclude_patterns = ["_build", "pages"]
templates_path = ["_templates"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
nitpicky = True  # a link to a name that does not exist is an error

# What is linked to elsewhere, in Sphinx' oldest and readable form: building needs no network.
intersphinx_mapping = {
    "numpy": ("https://numpy.org/doc/stable", "inventories/numpy.txt"),
}
autosummary_generate = True
numpydoc_show_class_members = False
# The four ranks of a function differ in nothing but their name and layout, which the signature shows.
autodoc_typehints = "none"
sphinx_gallery_conf = {
    "examples_dirs": "pages",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",  # all are run
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "remove_config_comments": True,
    "min_reported_time": 5,
    "abort_on_example_error": True,
}
copybutton_prompt_text = r">>> |\.\.\. ?|\$ "
copybutton_prompt_is_regexp = True


def without_last_line(app, name, source):
    """Take the empty line from the end of examples, by which a doctest ends."""
    source[0] = source[0].replace("\n\n```\n", "\n```\n")


def setup(app):
    """Register what this file adds."""
    from docutils import nodes  # noqa: PLC0415  # the tests import this file where there is no Sphinx
    from docutils.utils.math.latex2mathml import tex2mathml  # noqa: PLC0415

    def render(writer, node, as_block=False):
        formula = tex2mathml(node.astext(), as_block=as_block)
        writer.body.append(f'<div class="formula">{formula}</div>' if as_block else formula)
        raise nodes.SkipNode

    app.connect("source-read", without_last_line)
    app.add_html_math_renderer("mathml", (render, None), (partial(render, as_block=True), None))
