"""quantgru blob"""

from __future__ import annotations

import click


@click.command(epilog="Example: quantgru blob gesture.qgru -o gesture.qgb")
@click.argument("model", metavar="M.qgru")
@click.option("-o", "--output", required=True, metavar="M.qgb", help="Where the blob goes.")
def blob(model: str, output: str) -> None:
    """Write the model as data: bytes that a device loads when it runs, in place of C files.

    A device that has qg_load in its firmware runs any model that fits into its memory, and gets new ones over the air.
    firmware/BLOB.md defines the bytes.
    """
    from quantgru.cli.console import require_writable, write_file
    from quantgru.exporter import blob_memory, to_blob
    from quantgru.int_model import IntModel

    require_writable(output)
    int_model = IntModel.load(model)
    content = to_blob(int_model)
    write_file(output, content)
    needs = blob_memory(int_model)
    click.echo(f"wrote {output}: {len(content)} bytes; besides it, a device needs {needs} bytes of RAM")
