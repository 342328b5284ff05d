"""``python -m metammf``."""

from metammf.cli.main import main

main()
