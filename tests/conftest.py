"""Hypothesis draws the same examples every time, and a busy machine is no failure."""

from hypothesis import settings

settings.register_profile("course", deadline=None, derandomize=True, database=None, print_blob=False)
settings.load_profile("course")
