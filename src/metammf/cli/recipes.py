"""``metammf recipes``."""


def recipes() -> None:
    """List the recipes that ship with the package."""
    from metammf.cli.console import table
    from metammf.experiments.config import about_recipe, recipe_names

    rows = [(name, about_recipe(name)["description"]) for name in recipe_names()]
    table(("recipe", "what it is"), rows)
