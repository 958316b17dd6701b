"""`python -m fl_course` is the command `fl-course`. The doctor is called first: it must work where other packages do not."""

import sys


def main() -> None:
    try:
        if sys.argv[1:] == ["doctor"]:
            from .workbook.commands import doctor

            sys.exit(doctor.main())
        from .workbook.commands import cli

        cli.main()
    except KeyboardInterrupt:                 # while PyTorch is imported, say
        sys.exit(130)


if __name__ == "__main__":
    main()
