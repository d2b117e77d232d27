"""Finished jobs into tables and figures: collect -> statistics -> tables, figures -> render."""
