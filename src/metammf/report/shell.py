"""What every page has: one HTML file that needs no network, with its styles, its figures and what draws them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from metammf.report import figures

if TYPE_CHECKING:
    from collections.abc import Mapping


def render(template: str, charts: Mapping[str, Any], **values: Any) -> str:
    """Return a page.

    Args:
        template: Its file's name in ``templates``.
        charts: Name -> figure; a place in the page asks for one by ``data-chart``.
        values: What the template shows.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
    """
    figures.require_extra("the report")
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("metammf.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    specs = {
        name: {key: part for key, part in chart.to_dict().items() if key != "$schema"} for name, chart in charts.items()
    }
    return environment.get_template(template).render(
        **values, spec_names=set(specs), specs=_json(specs), bundle=_libraries(), ink=figures.INK
    )


def _json(value: Any) -> str:
    """JSON that may stand in a script element, whatever it holds."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def _libraries() -> str:
    """Vega, Vega-Lite and vega-embed as one script, which must not hold the end of the element that it stands in."""
    import vl_convert

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return re.sub("</script", r"<\\/script", bundle, flags=re.IGNORECASE)
