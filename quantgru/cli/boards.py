import click


@click.command()
def boards() -> None:
    """to come"""
