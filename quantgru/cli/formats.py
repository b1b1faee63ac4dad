"""quantgru formats"""

from __future__ import annotations

from typing import Any

import click


@click.command(epilog="Example: quantgru formats")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def formats(as_json: bool) -> None:
    """List what can be loaded: sources of models, what each needs, and conventions of plain arrays."""
    import json

    facts = _facts()
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        _print(facts)


def _facts() -> dict[str, Any]:
    from quantgru.importers.conventions import CONVENTIONS
    from quantgru.importers.sources import EVERY_SOURCE

    sources = [
        {
            "files": list(source.suffixes),
            "what": source.what,
            "needs": source.package,
            "installed": source.installed,
            "options": list(source.options),
        }
        for source in EVERY_SOURCE
    ]
    conventions = [{"name": name, "source": convention.source} for name, convention in CONVENTIONS.items()]
    return {"sources": sources, "conventions": conventions}


def _print(facts: dict[str, Any]) -> None:
    from rich.table import Table

    from quantgru.cli.console import console

    table = Table("source", "what it is", "needs", "here", "options")
    for source in facts["sources"]:
        table.add_row(
            " ".join(source["files"]) or "qg.load(object)",
            source["what"],
            source["needs"] or "nothing",
            "yes" if source["installed"] else "no",
            " ".join(f"--{option}" for option in source["options"]),
        )
    console().print(table)
    missing = sorted({source["needs"] for source in facts["sources"] if not source["installed"]})
    if missing:
        click.echo(f"missing packages: pip install {' '.join(missing)}")
    conventions = Table("convention", "from")
    for convention in facts["conventions"]:
        conventions.add_row(convention["name"], convention["source"])
    console().print(conventions)
    click.echo("A convention says what plain arrays mean: qg.from_arrays(convention=NAME, ...), --convention NAME.")
