"""The small modules that make readings of text."""
