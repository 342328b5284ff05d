"""``metammf recipes``."""


def recipes() -> None:
    """List the recipes that ship with the package."""
    import tomllib
    from importlib import resources

    from metammf.cli.console import table
    from metammf.experiments.config import recipe_names

    folder = resources.files("metammf.recipes")
    rows = [
        (name, tomllib.loads(folder.joinpath(f"{name}.toml").read_text(encoding="utf-8")).get("description", ""))
        for name in recipe_names()
    ]
    table(("recipe", "what it is"), rows)
