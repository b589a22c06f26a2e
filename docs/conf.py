"""The site: ``python -m sphinx -W docs build/site``. Pages are Markdown, notebooks among them run while it is built,
and the reference comes from docstrings. A built site needs no network."""

import os
import re
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for notebooks: small networks, perhaps on a busy machine
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # of tqdm, which would want another package

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

import rstg_pyg

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "rstg_pyg"
version = release = rstg_pyg.__version__
author = "the authors of rstg_pyg"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["**/.ipynb_checkpoints"]
html_theme = "furo"
html_title = f"rstg_pyg {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "html_image"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds a cell: a busy machine
nb_merge_streams = True
nb_render_markdown_format = "gfm"  # tables

autodoc_default_options = {"members": True, "no-value": True}
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True
napoleon_custom_sections = ["Shapes", "Source"]
napoleon_use_ivar = True
napoleon_use_rtype = False

nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!rstg_pyg\.).*"), ("py:class", r"rstg_pyg(\.\w+){3,}")]
suppress_warnings = ["ref.python", "myst-nb.lexer"]
"""References into the package have to lead somewhere. Those to other projects are shown as they are, and so are types
in signatures that no page names. An attribute's name that several classes have (``ref.python``) is no reference,
and without execution (``-D nb_execution_mode=off``, a quick look) cells have no colours."""


def to_mathml(node, text, display):
    """MathML, which browsers draw without a script; a command that the converter does not know is a warning."""
    made = convert(text, display=display)
    for unknown in re.findall(r">(\\[A-Za-z]+)<", made):
        logging.getLogger(__name__).warning("formula with the unknown command %s", unknown, location=node)
    return made


def inline_math(self, node):
    self.body.append(to_mathml(node, node.astext(), "inline"))
    raise SkipNode


def block_math(self, node):
    """Lines of a formula are parted by an empty line in docstrings, by a double backslash in Markdown."""
    text = r" \\ ".join(part for part in re.split(r"\n\s*\n", node.astext().strip()))
    if "&" in text and r"\begin" not in text:
        text = rf"\begin{{align*}}{text}\end{{align*}}"
    self.body.append(f'<div class="math">{to_mathml(node, text, "block")}</div>')
    raise SkipNode


def link_by_other_name(app, env, node, contnode):
    """``rstg_pyg.region_graph`` leads to what its room's page has as ``rstg_pyg.regions.region_graph``."""
    domain, target = env.get_domain("py"), node["reftarget"]
    if node.get("refdomain") != "py" or not target.startswith("rstg_pyg."):
        return None
    last = target.rpartition(".")[2]
    for name in domain.objects:
        if name.rpartition(".")[2] == last and found(name) is found(target) is not None:
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, contnode)
    return None


def found(name):
    try:
        return resolve_name(name)
    except (AttributeError, ImportError):
        return None


def text_of_constant(app, what, name, obj, options, lines):
    """What stands below a constant in the module that makes it."""
    if what != "data":
        return
    room, _, short = name.rpartition(".")
    lines.clear()  # what its type says of itself
    for module in [module for module in sys.modules if module.startswith(f"{room}.")]:
        lines += ModuleAnalyzer.for_module(module).find_attr_docs().get(("", short), [])


def exported_names_are_there(app, env):
    """The reference has a page for every room of the package, and on it every name that the room exports."""
    shown = env.get_domain("py").objects
    objects = {id(found(name)) for name in shown}
    for room in [path.parent.name for path in Path(rstg_pyg.__file__).parent.glob("*/__init__.py")]:
        module = import_module(f"rstg_pyg.{room}")
        for name in getattr(module, "__all__", ()):
            if f"rstg_pyg.{room}.{name}" not in shown and id(getattr(module, name)) not in objects:
                logging.getLogger(__name__).warning("rstg_pyg.%s.%s is on no page of docs/api", room, name)


def pictures_are_there(app, error):
    """Every picture that a built page shows is there; one in raw HTML is copied by nobody."""
    for page in Path(app.outdir).rglob("*.html") if error is None else ():
        for picture in re.findall(r'<img[^>]*?\bsrc="([^":]*)"', page.read_text()):
            if not (page.parent / picture).exists():
                logging.getLogger(__name__).warning("%s shows %s, which is not there", page.name, picture)


OUTSIDE = [
    (r'src="(\.\./)?docs/', 'src="'),
    (r"\]\((\.\./)?docs/", "]("),
    (r"\]\(\.\./benchmarks/README\.md\)", "](benchmarks.md)"),
    (r"\]\(\.\./results/(\w+)\.md\)", r"](#results-\1)"),
    (r"\]\(CONTRIBUTING\.md\)", "](contributing.md)"),
    (r"\]\(CITATION\.cff\)", "](../CITATION.cff)"),
]
"""Links of pages that lie outside of docs/, and to them: the site shows these as pages of its own."""


def link_into_the_site(app, name, parent_or_text, text=None):
    text = parent_or_text if text is None else text
    if name == "index":  # pages that are not there yet
        text[0] = re.sub(r"(?m)^(\w+)\*\n", lambda match: match[0] if [*HERE.glob(f"{match[1]}*.md")] else "", text[0])
    if name == "tables":
        include = "\n(results-{0})=\n```{{include}} ../results/{0}.md\n:heading-offset: 1\n```\n"
        text[0] += "".join(include.format(path.stem) for path in sorted((HERE.parent / "results").glob("*.md")))
    for link, target in OUTSIDE:
        text[0] = re.sub(link, target, text[0])


def setup(app):
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("missing-reference", link_by_other_name)
    app.connect("env-check-consistency", exported_names_are_there)
    app.connect("autodoc-process-docstring", text_of_constant)
    app.connect("source-read", link_into_the_site)
    app.connect("include-read", link_into_the_site)
    app.connect("build-finished", pictures_are_there)
