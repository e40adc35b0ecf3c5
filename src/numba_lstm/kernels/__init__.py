"""Compiled functions over arrays: they know no objects and no files."""
