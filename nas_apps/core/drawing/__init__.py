"""Cells, curves and the report page, drawn without a library."""
