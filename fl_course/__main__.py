"""`python -m fl_course` is the command `fl-course`."""

from .workbook.commands.cli import main

main()
