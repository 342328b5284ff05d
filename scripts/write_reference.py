"""Write docs/cli.md and docs/settings.md from the program itself: commands from their docstrings, settings from the configs.

python scripts/write_reference.py           write both
python scripts/write_reference.py --check   say whether they are up to date
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metammf.cli.main import app
from metammf.experiments.config import SplitConfig
from metammf.models.registry import MODELS, model_type
from metammf.training.config import TrainingConfig

if TYPE_CHECKING:
    from pydantic import BaseModel

DOCS = Path(__file__).parents[1] / "docs"
CLI = "cli.md"
SETTINGS = "settings.md"

CLI_HEAD = """\
# The command line

`metammf COMMAND --help` prints the same. Exit status: 0; 2 for bad input or config, with one message on stderr (`--debug`
adds a traceback); 130 after an interrupt. Tables go to stdout, progress and notes to stderr.

"""
SETTINGS_HEAD = """\
# Settings

What `--set SECTION.KEY=VALUE` and a recipe's TOML file can say; a value is TOML (`--set 'model.hidden_dims=[256]'`), `none`
takes a setting away. `metammf train ... --show-config` prints every value and where it came from. Unknown keys are refused.

"""


def cli() -> str:
    """Return the command line's page."""
    body = app.generate_docs(output_format="markdown", include_hidden=False)
    return CLI_HEAD + body[body.index("## metammf demo") :].strip() + "\n"


def settings() -> str:
    """Return the settings' page."""
    parts = [_table("training", "Training", TrainingConfig), _table("split", "Split", SplitConfig)]
    names = ("metammf", *sorted(set(MODELS) - {"metammf"}))
    parts += [_table("model", f'Model "{name}"', model_type(name).config_type) for name in names]
    return SETTINGS_HEAD + "\n\n".join(parts) + "\n"


def _table(section: str, title: str, config: type[BaseModel]) -> str:
    rows = [f"## {title}", "", "| key | default | what it is |", "|---|---|---|"]
    for name, field in config.model_fields.items():
        about = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{section}.{name}` | `{_value(field.default)}` | {about} |")
    return "\n".join(rows)


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return re.sub(r"^\((.*?),?\)$", r"[\1]", str(value))


def pages() -> dict[Path, str]:
    """Return both pages by their files."""
    return {DOCS / CLI: cli(), DOCS / SETTINGS: settings()}


def main() -> None:
    """Write, or check."""
    stale = [path for path, text in pages().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        sys.exit(f"{', '.join(path.name for path in stale)}: run scripts/write_reference.py" if stale else None)
    for path in stale:
        path.write_text(pages()[path], encoding="utf-8")
        print(f"{path.relative_to(DOCS.parent)} written")


if __name__ == "__main__":
    main()
