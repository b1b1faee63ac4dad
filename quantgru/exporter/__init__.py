"""From an integer model to portable C99, or to a blob that a device loads: bytes and text out, files elsewhere."""

from quantgru.exporter.blob import blob_memory, to_blob
from quantgru.exporter.files import export_files
from quantgru.exporter.write import export

__all__ = ["blob_memory", "export", "export_files", "to_blob"]
