"""Answers: one exercise and its check, and a class of notebooks.

    exercise.py    what an exercise is and how an answer is examined
    checks.py      check, hint, reveal, progress; how to write a chapter of exercises
    compare.py     equal up to rounding; what a function was asked and answered
    cards.py       what a result looks like in a notebook
    intake.py      what was handed in, read without trust: notebooks, scripts, archives
    collect.py     which files of a folder are submissions, and of which chapter
    classroom.py   a folder of submissions → a grade each
    referee.py     the parent of the process in which one submission runs: what is believed of it
    worker.py      that process
    judge.py       its other half, which sees for itself what is solved (Linux)
    carry.py       questions and answers between the two
    template.py    what it is made from without importing all anew (Linux)
    fence.py       what holds it in
    gradebook.py   marks, table and pages on the disk
    roster.py      whose a file is
    school.py      weights, which of several files counts, tables for Moodle and Canvas
    overview.py    the teacher's page of the class
"""
