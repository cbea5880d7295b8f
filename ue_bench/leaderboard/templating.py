"""Fill the templates of pages: everything that is put into them is text, and never markup."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from . import colour

if TYPE_CHECKING:
    import jinja2


def template(name: str) -> str:
    """Return the text of a template, a stylesheet or a script."""
    return (files("ue_bench.leaderboard") / "templates" / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        autoescape=True,
        loader=jinja2.FunctionLoader(template),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(name: str, **values: Any) -> str:
    """Return the page that the template of that name gives. A value that is missing is an error."""
    return _environment().get_template(name).render(**values)


@cache
def stylesheet(*names: str) -> Any:
    """Return these stylesheets in one, with a class ``h0``, ``h1`` ... for each colour of the heatmap, as markup."""
    from markupsafe import Markup

    return Markup("\n".join(map(template, names)) + _heat_rules())


def _heat_rules() -> str:
    """Return one class a level, for light and for dark pages; paper is light."""

    def rules(ramp: colour.Ramp) -> str:
        pairs = enumerate(colour.levels(ramp))
        return "\n".join(f".h{i} {{ background: {ground}; color: {text}; }}" for i, (ground, text) in pairs)

    dark = f"@media screen and (prefers-color-scheme: dark) {{\n{rules(colour.DARK)}\n}}"
    return f"{rules(colour.LIGHT)}\n{dark}\n"
