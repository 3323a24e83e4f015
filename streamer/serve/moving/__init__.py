"""Streams and sensors out of one daemon and into another, for administrators."""
