"""From an integer model to portable C99: text out, files elsewhere."""

from quantgru.exporter.arduino import arduino_files
from quantgru.exporter.files import export_files
from quantgru.exporter.write import export, export_arduino

__all__ = ["arduino_files", "export", "export_arduino", "export_files"]
