"""From an integer model to portable C99, or to a blob that a device loads: bytes and text out, files elsewhere."""

from quantgru.exporter.arduino import arduino_files
from quantgru.exporter.blob import blob_memory, to_blob
from quantgru.exporter.files import export_files
from quantgru.exporter.write import export, export_arduino

__all__ = ["arduino_files", "blob_memory", "export", "export_arduino", "export_files", "to_blob"]
