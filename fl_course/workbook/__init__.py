"""The workbook: checks for notebooks, and the `fl-course` command. The library never imports this package."""

from .grading.cards import report
from .grading.checks import check, hint, progress, reveal

__all__ = ["check", "hint", "progress", "report", "reveal"]
