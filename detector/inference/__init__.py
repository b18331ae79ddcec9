"""Trained detectors in use: from Python, and over images and videos that a user names."""
