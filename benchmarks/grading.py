"""What grading a class costs: copies of a chapter's solutions, graded as `fl-course grade` does it.

    python -m benchmarks.grading [files] [chapter]

Processor time of the grader and of all that it starts, and time on the clock, with two files at a time.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

from fl_course.workbook.grading import classroom
from fl_course.workbook.grading.gradebook import Gradebook

ROOT = Path(__file__).parents[1]


def graded(files: int, chapter: str) -> tuple[float, float]:
    """(processor seconds, seconds) that so many solutions of a chapter take."""
    (solution,) = (ROOT / "solutions").glob(f"{chapter}_*.ipynb")
    with tempfile.TemporaryDirectory() as place:
        box = Path(place) / "in"
        box.mkdir()
        for i in range(files):
            (box / f"{i:03}.ipynb").write_bytes(solution.read_bytes())
        book = Gradebook(Path(place) / "out", {"chapter": chapter})
        book.open()
        used, begun = processor(), time.monotonic()
        grades = list(classroom.grade_files(box, classroom.submissions(box), chapter, jobs=2, book=book))
        seconds = time.monotonic() - begun
    assert all(grade.solved == len(grade.exercises) for grade in grades), "a solution that was not solved"
    return processor() - used, seconds


def processor() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


if __name__ == "__main__":
    files, chapter = int(sys.argv[1]) if len(sys.argv) > 1 else 200, sys.argv[2] if len(sys.argv) > 2 else "01"
    used, seconds = graded(files, chapter)
    print(f"{files} files of chapter {chapter}: {used:.0f} s of processor time, {seconds:.0f} s on the clock, two at a time")
