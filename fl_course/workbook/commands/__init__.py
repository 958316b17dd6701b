"""The command `fl-course`, a file a verb or two.

    cli.py          train, run, sweep, check, export desk.py      grade, start, lab, judge, doctor, test
    demo.py         what `run` trains first          runner.py    one notebook by papermill
    front.py        the page that `run` leaves       classroom.py the room
    parameters.py   -p name value, typed             sweep.py     a grid of runs → one table
    export.py       offline HTML                     validate.py  check
    doctor.py       what is wrong, how to mend it    kernels.py   a kernel of this interpreter
    optional.py     … of what nobody needs           deploy.py    Flower's processes
    places.py       where the notebooks are          terminal.py  what is printed, and how
    orphans.py      children end with their parent
"""
