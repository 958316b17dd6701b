"""The exercises, one module a chapter: `ch01.py` has the tuple EXERCISES of chapter 01. See `fl_course.workbook.grading.checks`.

A teacher's own chapters need not live here: FL_COURSE_CHAPTERS names a folder with more chNN.py files.
"""

import os

__path__ = [*__path__, *filter(None, os.environ.get("FL_COURSE_CHAPTERS", "").split(os.pathsep))]
