"""Write the figures of ``benchmarks/README.md`` from ``benchmarks/results/``; nothing by hand.

``python benchmarks/fill_tables.py``. Every JSON file there in the form of `harness.write` becomes a section between the markers:
its title, its command, its tables. Where two machines or two sets of versions made them, each section names its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import figure
from metammf.files import atomic_open, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).parent
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
ORDER = ("literal", "fusion", "propagation", "negatives", "ranking", "peers", "growth", "large", "startup", "device")
"""How the names of files begin, in the order of the sections; others follow by the alphabet."""


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what was measured, by the file's name, in the order of the sections; a small size is no result."""
    found = {path.stem: read_json(path) for path in folder.glob("*.json")}
    kept = {
        name: result
        for name, result in found.items()
        if {"title", "tables", "machine", "versions"} <= result.keys() and not result.get("settings", {}).get("quick")
    }
    return {name: kept[name] for name in sorted(kept, key=_place)}


def _place(name: str) -> tuple[int, str]:
    return next((place for place, start in enumerate(ORDER) if name.startswith(start)), len(ORDER)), name


def section(result: Mapping[str, Any], where: str | None) -> list[str]:
    """Return the lines of one result; `where` names its machine, if that is not told once for all."""
    lines = [f"### {result['title']}", "", f"`{result['command']}`" + (f", on {where}" if where else "")]
    for table in result["tables"]:
        lines += ["", f"**{table['title']}**" if table["title"] != result["title"] else "", *rows(table)]
        for note in table["notes"]:
            lines += ["", note]
    return [*lines, ""]


def rows(table: Mapping[str, Any]) -> list[str]:
    """Set a table in Markdown; columns that are empty throughout are left out."""
    columns = [name for name in table["rows"][0] if any(row.get(name) is not None for row in table["rows"])]
    text = [isinstance(table["rows"][0][name], str) for name in columns]
    lines = [columns, [":--" if left else "--:" for left in text]]
    lines += [[figure(row.get(name)) for name in columns] for row in table["rows"]]
    return ["", *(f"| {' | '.join(line)} |" for line in lines)]


def machine(result: Mapping[str, Any]) -> str:
    """Name what a result was measured on."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    at, threads = result["machine"], result.get("settings", {}).get("threads")
    used = f", {threads} threads" if threads else ""
    return f"{at['processor']}, {at['cores']} cores{used}; {versions}"


def text(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return all that stands between the markers."""
    if not found:
        return "Nothing has been measured yet.\n"
    places = {machine(result) for result in found.values()}
    lines = [f"Measured on {places.copy().pop()}.", ""] if len(places) == 1 else []
    for result in found.values():
        lines += section(result, machine(result) if len(places) > 1 else None)
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Fill in."""
    page = FOLDER / "README.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    with atomic_open(page) as stream:
        stream.write(f"{before}{BEGIN}\n\n{text(results(FOLDER / 'results'))}\n{END}{after}")


if __name__ == "__main__":
    main()
