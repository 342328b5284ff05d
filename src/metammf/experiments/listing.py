"""What runs there are in a folder, at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from metammf.errors import ForeignModelError, MetaMMFError
from metammf.experiments.evaluating import EVALUATIONS
from metammf.experiments.run import METRICS, RUN_FILE, Run, is_free
from metammf.files import read_json

if TYPE_CHECKING:
    from pathlib import Path

STOPPED = "stopped"


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """Return one row a run, by name; what is damaged, or of a model from elsewhere, is listed as such, test figures of refitted
    ones apart. A run that is not finished is `training` where a process is at it, else `STOPPED`.
    """
    rows = [_row(entry.parent) for entry in sorted(folder.rglob(RUN_FILE))]
    if all(row["refitted"] is None for row in rows):
        for row in rows:
            del row["refitted"]  # a column for those that there are
    return rows


def _row(path: Path) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(
        ("run", "model", "data", "split", "seed", "state", "epoch", "metric", "validation", "test", "refitted")
    )
    row["run"] = str(path)
    try:
        run = Run.load(path)
        config, metric = run.config, run.config.training.metric
        row |= {
            "model": _title(config.model.model_dump()),
            "data": run.record["data"]["name"],
            "split": run.record["split"]["method"],
            "seed": config.seed,
            "state": ", ".join(filter(None, [_state(run), config.placebo, "refit" if config.refit else None])),
            "epoch": run.record.get("epochs"),
            "metric": metric,
            "validation": _chosen(run),
            "refitted" if config.refit else "test": _found(path, "test", ("train+validation", "train"), metric),
        }
    except ForeignModelError as error:
        row |= {"model": error.model, "state": f"not read (METAMMF_MODELS={error.module} reads it)"}
    except (MetaMMFError, KeyError, TypeError, AttributeError):  # a file that is not what it should be
        row["state"] = "damaged"
    return row


def _state(run: Run) -> str:
    recorded = str(run.record["state"])
    return STOPPED if recorded == "training" and is_free(run.path) else recorded


def _title(model: dict[str, Any]) -> str:
    return " ".join(str(model[key]) for key in ("name", "backbone", "fusion") if key in model)


def _chosen(run: Run) -> float | None:
    """Return the validation value of the epoch taken; of a model that is solved, what was found in the end."""
    path, metric = run.path / METRICS, run.config.training.metric
    chosen = read_json(path)["chosen"] if path.is_file() else None
    return chosen["metrics"].get(metric) if chosen else _found(run.path, "validation", ("train",), metric)


def _found(path: Path, part: str, maskings: tuple[str, ...], metric: str) -> float | None:
    """Return the value of the first evaluation that is kept beside the run, None where there is none."""
    for seen in maskings:
        file = path / EVALUATIONS / f"{part}-{seen}.json"
        if file.is_file():
            return read_json(file)["metrics"].get(metric)
    return None
