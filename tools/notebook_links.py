"""What the build adds to a text: a way through the notebooks, anchors, folded answers, links to words, papers and files.

In a markdown cell
    `Answer: …`                a paragraph that begins so is folded
    `[[drift]]`, `[[drifts|client drift]]`   a link to the glossary; without a mark the first use of a word is linked
    `arXiv:1602.05629`, `doi:10.1145/3133956.3133982`     links to the paper
    `` `fl_course/drift/methods.py` ``                    a link to the file, which must exist
Relative links are checked: the file and, behind `#`, the anchor must be there.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
from glossary import MARKED, Glossary, slug
from notebook_sources import SourceError

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"!?\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)(?P<title> \"[^\"]*\")?\)")
SHIELD = (                                                       # what no link may be put into
    r"^```.*?^```|^~~~.*?^~~~|`[^`\n]+`|\$\$.+?\$\$|(?<![\\$\w])\$[^$\n]+?\$(?![\w$])"
    r'|!?\[(?!\[)(?:[^\]\[]|\[[^\]\[]*\])*\]\((?:[^()"]|"[^"]*")*\)'
    r"|<[^>\n]+>|^#+ [^\n]*$|https?://\S+"
)
PROTECTED = re.compile(f"({SHIELD})", re.S | re.M)
NO_WORDS = re.compile(rf"({SHIELD}|^\*\*References\*\*.*|^## References.*)", re.S | re.M)      # titles of papers stay as they are
PAPER = re.compile(r"(?<![\w/])(?:arXiv:(?P<arxiv>\d{4}\.\d{4,5}(?:v\d+)?)|doi:(?P<doi>10\.\d{4,9}/[^\s)\]]*[^\s)\].,;:]))")
FILE = re.compile(r"(?<![\[`])`((?:fl_course|source|tools|tests|docs|benchmarks)/[\w./-]+)`(?![\]`])")
ANSWER = re.compile(r"(?:(?<=\n\n)|\A)Answer: ((?:(?!\n\n).)+)", re.S)
HEADING = re.compile(r"^## +(.+?) *$", re.M)
ANCHOR = re.compile(r"<a id=\"([^\"]+)\"></a>")


def outside(text: str, change: Callable[[str], str]) -> str:
    """`change` applied to the prose only: code, formulas, links and headings stay as they are."""
    return "".join(part if i % 2 else change(part) for i, part in enumerate(PROTECTED.split(text)))


# --- one text ---------------------------------------------------------------------------------------------------------


def fold_answers(text: str) -> str:
    return ANSWER.sub(lambda match: f"<details><summary>Answer</summary>\n\n{match[1].rstrip()}\n\n</details>", text)


def link_papers(text: str) -> str:
    def link(match: re.Match[str]) -> str:
        where = f"https://arxiv.org/abs/{match['arxiv']}" if match["arxiv"] else f"https://doi.org/{match['doi']}"
        return f"[{match[0]}]({where})"

    return outside(text, lambda part: PAPER.sub(link, part))


def link_files(text: str, where: str) -> str:
    def link(match: re.Match[str]) -> str:
        if not (ROOT / match[1]).exists():
            raise SourceError(f"{where}: there is no {match[1]}; was it moved?")
        return f"[{match[0]}](../{match[1]})"

    return FILE.sub(link, text)


def link_words(texts: list[str], glossary: Glossary, page: str, name: str, first_uses: bool) -> list[str]:
    """The texts of a notebook with every `[[word]]` and, if asked for, the first use of each other word as a link to `page`."""
    marked = {glossary.find(match[2] or match[1], name) for text in texts for match in _marks(text)}
    wanted = [] if not first_uses else [word for word in glossary.words if word not in marked and not word.only_where_marked]
    out = []
    for text in texts:
        text = outside(text, lambda part: MARKED.sub(
            lambda match: glossary.find(match[2] or match[1], name).link(match[1], page), part))  # fmt: skip
        for word in list(wanted):
            text, found = _first(text, word.pattern, lambda shown, word=word: word.link(shown, page))
            if found:
                wanted.remove(word)
        out.append(text)
    return out


def _marks(text: str) -> list[re.Match[str]]:
    found: list[re.Match[str]] = []
    outside(text, lambda part: found.extend(MARKED.finditer(part)) or part)
    return found


def _first(text: str, pattern: re.Pattern[str], link: Callable[[str], str]) -> tuple[str, bool]:
    parts = NO_WORDS.split(text)
    for i in range(0, len(parts), 2):
        if match := pattern.search(parts[i]):
            parts[i] = parts[i][: match.start()] + link(match[0]) + parts[i][match.end() :]
            return "".join(parts), True
    return text, False


def anchor_headings(texts: list[str], name: str) -> tuple[list[str], list[tuple[str, str]]]:
    """The texts with an anchor above every `##` heading, and the list of (heading, anchor)."""
    found: list[tuple[str, str]] = []

    def anchor(match: re.Match[str]) -> str:
        place = slug(match[1])
        if not place or "](" in match[1]:
            raise SourceError(f"{name}: the heading {match[1]!r} needs words, and no link, so that a link can lead to it")
        if place in [other for _, other in found]:
            raise SourceError(f"{name}: two headings {match[1]!r}; a link leads to one of them only")
        found.append((match[1], place))
        return f'<a id="{place}"></a>\n{match[0]}'

    fenced = re.compile(r"(^```.*?^```)", re.S | re.M)
    return ["".join(part if i % 2 else HEADING.sub(anchor, part) for i, part in enumerate(fenced.split(text)))
            for text in texts], found  # fmt: skip


# --- the way through the notebooks ------------------------------------------------------------------------------------


def title_of(cells: list[nbformat.NotebookNode]) -> str:
    """The first heading of a notebook, "2 · Heterogeneity and client drift"; empty if it does not begin with one."""
    first = cells[0].source if cells and cells[0].cell_type == "markdown" else ""
    return first.partition("\n")[0].removeprefix("# ").strip() if first.startswith("# ") else ""


def navigation(path: Path, titles: dict[Path, str], glossary: bool) -> tuple[str, str]:
    """(line at the top, line at the end) of a notebook; `titles` has all notebooks that are built, in order."""
    here, number = path.parts[0], path.name[:2]
    lessons = [other for other in titles if other.parts[0] == "notebooks"]
    lesson = next((other for other in lessons if other.name[:2] == number), None)
    exercises, solutions = (next((other for other in titles if other.parts[0] == folder and other.name[:2] == number), None)
                            for folder in ("exercises", "solutions"))  # fmt: skip
    before = max((other for other in lessons if other.name[:2] < number), default=None)
    after = min((other for other in lessons if other.name[:2] > number), default=None)

    def link(text: str, target: Path | None) -> list[str]:
        return [f"[{text}]({_relative(path, target)})"] if target is not None else []

    words = link("symbols and words", Path("notebooks", "glossary.md")) if glossary else []
    onwards = link(f"{titles[after]} →", after) if after else []
    if here == "notebooks":
        top = [*(link(f"← {titles[before]}", before) if before else []), *onwards, *link("exercises", exercises), *words]
        end = [*link("Now do the exercises", exercises), *link("their solutions, afterwards", solutions), *onwards]
    elif here == "exercises":
        top = [*(link(f"lesson {titles[lesson]}", lesson) if lesson else []), *words]
        end = [*link("Solutions, now that you have tried", solutions), *onwards]
    else:
        top = [*link("the exercises", exercises), *(link(f"lesson {titles[lesson]}", lesson) if lesson else [])]
        end = onwards
    return " | ".join(top), " | ".join(end)


def _relative(path: Path, target: Path) -> str:
    return posixpath.relpath(target.as_posix(), path.parent.as_posix())


def furnished(path: Path, cells: list[nbformat.NotebookNode], titles: dict[Path, str], glossary: Glossary | None,
              first_uses: bool) -> list[nbformat.NotebookNode]:  # fmt: skip
    """The cells of a notebook with its links, anchors and folded answers, and a cell of navigation at either end."""
    name = path.as_posix()
    prose = [i for i, cell in enumerate(cells) if cell.cell_type == "markdown"]
    texts = [fold_answers(cells[i].source) for i in prose]
    if glossary is not None:
        page = _relative(path, Path("notebooks", "glossary.md"))
        texts = link_words(texts, glossary, page, name, first_uses)
    elif any(map(_marks, texts)):
        raise SourceError(f"{name}: marks a word with [[…]], and there is no source/glossary.md")
    texts = [link_papers(link_files(text, name)) for text in texts]
    texts, headings = anchor_headings(texts, name)
    out = list(cells)
    for i, text in zip(prose, texts, strict=True):
        out[i] = nbformat.v4.new_markdown_cell(text, metadata=cells[i].metadata)
    if path not in titles:                                       # a notebook without a title: nothing to find one's way by
        return out
    top, end = navigation(path, titles, glossary is not None)
    contents = " · ".join(f"[{heading}](#{place})" for heading, place in headings)
    head = "\n\n".join(part for part in (top, contents and f"**On this page:** {contents}") if part)
    made = [nbformat.v4.new_markdown_cell(text, metadata={"tags": ["navigation"]}) for text in (head, end and f"---\n\n{end}")]
    return [*out[:1], *([made[0]] if head else []), *out[1:], *([made[1]] if end else [])]


# --- links that lead nowhere ------------------------------------------------------------------------------------------


def check_links(root: Path, pages: dict[Path, list[str]]) -> None:
    """SourceError for the first relative link of any page (its markdown texts) whose file or anchor does not exist."""
    anchors = {path: {place for text in texts for place in ANCHOR.findall(text)} for path, texts in pages.items()}
    for path, texts in pages.items():
        for text in texts:
            for match in LINK.finditer(re.sub(r"^```.*?^```|`[^`\n]+`(?!\])", "", text, flags=re.S | re.M)):
                target, _, place = match["target"].partition("#")
                if re.match(r"https?://|mailto:", target):
                    continue
                aim = Path(posixpath.normpath((path.parent / target).as_posix())) if target else path
                if aim not in pages and not (root / aim).exists() and not (ROOT / aim).exists():
                    raise SourceError(f"{path.as_posix()}: the link {match['target']!r} leads nowhere")
                if place and place not in anchors.get(aim, ()):
                    raise SourceError(f"{path.as_posix()}: the link {match['target']!r} has no anchor of this name to go to")
