"""Answers: one exercise and its check, and a class of notebooks.

    exercise.py    what an exercise is and how an answer is examined
    checks.py      check, hint, reveal, progress; how to write a chapter of exercises
    compare.py     equal up to rounding; what a function was asked and answered
    cards.py       what a result looks like in a notebook
    classroom.py   a folder of submissions → marks and pages of feedback
    worker.py      the process in which one submission runs
"""
