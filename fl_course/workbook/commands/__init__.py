"""The command `fl-course`, a file a verb or two.

    cli.py          run, sweep, check, export        desk.py      start, lab, doctor, grade, test
    demo.py         what `run` trains first          runner.py    one notebook by papermill
    front.py        the page that `run` leaves
    parameters.py   -p name value, typed             sweep.py     a grid of runs → one table
    export.py       offline HTML                     validate.py  check
    doctor.py       what is wrong, how to mend it    kernels.py   a kernel of this interpreter
    places.py       where the notebooks are          terminal.py  what is printed, and how
    orphans.py       children end with their parent
"""
