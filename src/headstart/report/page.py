"""The page: the template filled with what there is to say. All that comes from elsewhere is escaped."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from headstart.core.counts import counted
from headstart.core.text import one_line, shortened
from headstart.report.photos import Pictures
from headstart.report.records import Content
from headstart.report.sections import LONGEST, context_of, percent

if TYPE_CHECKING:
    from jinja2 import Template


def page_of(content: Content, pictures: Pictures) -> str:
    """The report as one HTML page, which asks for nothing beyond itself."""
    return _template().render(**context_of(content, pictures)) + "\n"


def _in_one_line(value: Any) -> Any:
    """Names and sentences without signs that turn or break a line; markup as it is."""
    return one_line(value) if type(value) is str else value


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    read = resources.files(__package__).joinpath
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_in_one_line, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "counted": counted, "short": lambda name: shortened(name, LONGEST)}
    style = "".join(read(name).read_text("utf-8") for name in ("page.css", "charts.css"))
    environment.globals["style"] = Markup(style)  # noqa: S704  (files of the package)
    environment.filters["svg"] = Markup  # of `charts`, which escapes what it is given
    return environment.from_string(read("page.html").read_text("utf-8"))
