"""Moves streams and sensors from one daemon to another, for administrators."""
