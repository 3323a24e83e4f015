"""Readings from text: encoding, separators, numbers, times and layouts; pure functions, used for every input."""
