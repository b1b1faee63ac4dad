"""From an integer model to portable C99: text out, files elsewhere."""

from quantgru.exporter.files import export_files
from quantgru.exporter.write import export

__all__ = ["export", "export_files"]
