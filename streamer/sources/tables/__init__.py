"""Readings out of text: encoding, separators, numbers, times and layouts, each pure and for every way in."""
