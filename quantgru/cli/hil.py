import click


@click.command()
def hil() -> None:
    """to come"""
