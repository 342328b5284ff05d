"""``metammf demo``."""

from pathlib import Path


def demo(*, out: Path = Path("demo"), seed: int = 0) -> None:
    """Train and compare models on the embedded world, and write a report.

    Parameters
    ----------
    out
        The folder to write.
    seed
        Of the world and of training.
    """
    del out, seed
