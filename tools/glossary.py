"""Symbols and words: source/glossary.md is the one place where they are explained; notebooks/glossary.md is what is read.

    ### client drift
    *also: drift*

    How far the clients of a round pull apart. …

A word is linked where a lesson first uses it (or where it is marked `[[…]]`), with its first sentence as a tool tip.
`*only where marked*` is for words that also mean something else.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from notebook_sources import SourceError, text_of

ENTRY = re.compile(r"^### +(?P<name>.+?) *\n(?:\*(?P<notes>[^*\n]+)\*\n)?(?P<text>(?:(?!^##).*\n?)*)", re.M)
NOTES = re.compile(r"(?:also: (?P<forms>[^;]+))?(?:; )?(?P<only>only where marked)?")
MARKED = re.compile(r"\[\[([^\]|\[]+)(?:\|([^\]\[]+))?\]\]")


GREEK = dict(zip("αβδεημσ", ("alpha", "beta", "delta", "epsilon", "eta", "mu", "sigma"), strict=True))


def slug(text: str) -> str:
    """An anchor of plain letters. JupyterLab follows no other: it compares the link with the anchor before decoding it."""
    spelt = unicodedata.normalize("NFKD", "".join(GREEK.get(letter, letter) for letter in text.lower()))
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"[\u0300-\u036f]", "", spelt)).strip("-")


@dataclass(frozen=True)
class Word:
    """One entry: its name, the other forms in which it occurs, and its first sentence."""

    name: str
    forms: tuple[str, ...]
    first: str
    only_where_marked: bool = False

    @property
    def anchor(self) -> str:
        return slug(self.name)

    @property
    def pattern(self) -> re.Pattern[str]:
        """Where the word is used: as a whole, in singular or plural; as written if it has capitals (IID), else in any case."""
        forms = sorted((self.name, *self.forms), key=len, reverse=True)
        spelt = [re.escape(form) if re.search("[A-Z]", form) else f"(?i:{re.escape(form)})" for form in forms]
        return re.compile(rf"(?<![\w-])(?:{'|'.join(spelt)})(?:s|es)?(?![\w-])")

    def link(self, shown: str, page: str) -> str:
        return f'[{shown}]({page}#{self.anchor} "{self.first}")'


@dataclass(frozen=True)
class Glossary:
    """All words, and the page they stand on."""

    words: tuple[Word, ...]
    page: str

    def find(self, text: str, where: str) -> Word:
        """The word that has this name or form. SourceError suggests the nearest one."""
        text = " ".join(text.split())
        known = {form.lower(): word for word in self.words for form in (word.name, *word.forms)}
        for form in (text.lower(), text.lower().removesuffix("s"), text.lower().removesuffix("es")):
            if form in known:
                return known[form]
        near = difflib.get_close_matches(text.lower(), known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else "add it there"
        raise SourceError(f"{where}: [[{text}]] is not in source/glossary.md; {advice}")


def read_glossary(path: Path) -> Glossary:
    """The glossary, with an anchor above every word. SourceError for a word that stands twice or has no explanation."""
    text, words = text_of(path), []
    for match in ENTRY.finditer(text):
        notes = NOTES.fullmatch(match["notes"] or "")
        if notes is None:
            raise SourceError(f"{path.name}, {match['name']}: write *also: form, form; only where marked*")
        if len(match["text"].strip()) < 20:
            raise SourceError(f"{path.name}, {match['name']}: explain it in a sentence")
        forms = tuple(form.strip() for form in (notes["forms"] or "").split(",") if form.strip())
        words.append(Word(match["name"], forms, first_sentence(match["text"]), bool(notes["only"])))
    seen: dict[str, str] = {}
    for word in words:
        for form in {form.lower() for form in (word.name, *word.forms)}:
            if form in seen:
                raise SourceError(f"{path.name}: {form!r} stands under {seen[form]!r} and under {word.name!r}")
            seen[form] = word.name
    glossary = Glossary(tuple(words), "")

    def entry(match: re.Match[str]) -> str:
        word = glossary.find(match["name"], path.name)
        return f'<a id="{word.anchor}"></a>\n### {match["name"]}\n\n{match["text"].lstrip()}'

    page = ENTRY.sub(entry, text)
    page = MARKED.sub(lambda match: glossary.find(match[2] or match[1], path.name).link(match[1], ""), page)
    return Glossary(tuple(words), page.rstrip() + "\n")


def first_sentence(text: str) -> str:
    """The first sentence as plain text, for a tool tip."""
    plain = MARKED.sub(r"\1", " ".join(text.split()))
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", plain)
    plain = re.sub(r"[*`$\\]", "", plain).replace('"', "'").replace("|", "/")
    end = re.search(r"(?<![A-Z])[.!?](?= [A-Z(]|$)", plain)
    return (plain[: end.end()] if end else plain)[:240]
