"""Whose file is this? A class list, and what the exports of Moodle, Canvas and GitHub Classroom put into the names.

    Moodle              Anna Müller_1234567_assignsubmission_file_/01.ipynb
    Canvas              mulleranna_LATE_123_4567_01-2.ipynb           (user 123, file 4567, second attempt)
    GitHub Classroom    homework-1-annam/01.ipynb

A file that fits nobody, or two people, stays without a name: nobody is given another's mark.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MOODLE = re.compile(r"^(?P<name>.+?)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext)(?:_|$)")
CANVAS = re.compile(r"^(?P<key>[^\W_]+)_(?P<late>LATE_)?(?P<id>\d+)_(?P<file>\d+)_.")
ATTEMPT = re.compile(r"-(\d{1,3})(?:\.[A-Za-z]+)+$")
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})
COLUMNS = {
    "id": ("id", "id number", "idnumber", "student id", "student number", "matriculation number", "sis user id", "identifier"),
    "name": ("name", "full name", "fullname", "student", "student name"),
    "first": ("first name", "firstname", "given name"),
    "last": ("surname", "last name", "lastname", "family name"),
    "email": ("email", "email address", "mail", "sis login id"),
    "login": ("github", "github username", "username", "login", "user name"),
}


@dataclass(frozen=True)
class Person:
    """One line of the class list. What the list has not is empty."""

    id: str
    name: str = ""
    email: str = ""
    login: str = ""


@dataclass(frozen=True)
class Owner:
    """What is known of whose a file is. `key` is the same for all files of one person, and "" if nothing is known."""

    key: str = ""
    person: Person | None = None              # of the class list
    name: str = ""                            # as the file's name has it, if there is no such person
    system_id: str = ""                       # the number in names of Moodle (of the submission) or Canvas (of the user)
    system: str = ""                          # "moodle", "canvas", "github" or ""
    late: bool = False
    attempt: int = 0

    @property
    def shown(self) -> str:
        return self.person.name or self.person.id if self.person else self.name


def read_roster(path: Path) -> list[Person]:
    """The class list: CSV with a header that has at least an id, and a name or an e-mail address. ValueError in a sentence."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"the class list {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"the class list {path} is not UTF-8; save it as 'CSV UTF-8'") from error
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(map(str.strip, row))]
    except csv.Error as error:
        raise ValueError(f"the class list {path} is no table: {error}") from error
    places = _places(rows[0]) if rows else {}
    if not ({"id", "email", "login"} & set(places) and {"name", "last", "email", "id"} & set(places)):
        raise ValueError(f"the class list {path} needs a first line with id, name and email; it has {header.strip()[:100]!r}")
    people = [_person(row, places) for row in rows[1:]]
    known: dict[str, int] = {}
    for number, person in enumerate(people, start=2):
        if not person.id:
            raise ValueError(f"the class list {path} has nobody's id in line {number}")
        if first := known.get(person.id.casefold()):
            raise ValueError(f"the class list {path} has the id {person.id!r} twice, in lines {first} and {number}")
        known[person.id.casefold()] = number
    return people


def owners(files: Sequence[str], people: Sequence[Person] = ()) -> dict[str, Owner]:
    """Whose each file is; `files` as they are called in the table, with / between folders."""
    tops = {name.split("/")[0] for name in files if "/" in name and not MOODLE.match(name)}
    common = ""
    for letters in zip(*tops, strict=False) if len(tops) > 1 else ():
        if len(set(letters)) > 1:
            break
        common += letters[0]
    common = common[: common.rfind("-") + 1]                     # homework-1- of homework-1-anna, homework-1-ben
    return {name: _owner(name, people, common) for name in files}


def _owner(name: str, people: Sequence[Person], common: str) -> Owner:
    parts = name.split("/")
    for part in parts:
        if found := MOODLE.match(part):
            words = found["name"].strip()
            anonymous = f"Participant {found['id']}"             # not a student's number, which may be another one's
            person = _by_name(people, words) or _one([one for one in people if one.id == anonymous], bool)
            return Owner(_key(person) or f"moodle {found['id']}", person, words, found["id"], "moodle")
    for part in parts:
        if found := CANVAS.match(part):
            same = [one for one in people if not one.name or found["key"] in _squashed(one.name)]
            person = _one(same, lambda one: one.id == found["id"]) or _one([one for one in same if one.name], bool)
            attempt = ATTEMPT.search(part)
            late, number = bool(found["late"]), int(attempt[1]) if attempt else 0
            return Owner(_key(person) or f"canvas {found['id']}", person, found["key"], found["id"], "canvas", late, number)
    top = parts[0] if len(parts) > 1 else ""
    ends = [one for one in people if any(top.casefold().endswith(f"-{word.casefold()}") for word in (one.login, one.id) if word)]
    exact = [one for one in ends if common and top[len(common) :].casefold() in (one.login.casefold(), one.id.casefold())]
    ends = exact or ends
    if len(ends) == 1:
        return Owner(_key(ends[0]), ends[0], top, "", "github")
    person = _one(people, lambda one: _mentioned(one, name))
    if person:
        return Owner(_key(person), person)
    if common and len(top) > len(common) and not ends:
        return Owner(f"github {top.casefold()}", None, top[len(common) :], "", "github")
    return Owner()


def _mentioned(person: Person, name: str) -> bool:
    """Does the name of the file hold the id, the address or login, or all words of the person's name?"""
    tokens, words = _words(name), _words(person.name)
    exact = {part.casefold() for part in re.split(r"[/\s,;()\[\]]+", name)} | tokens
    stems = {part.rsplit(".", 1)[0] for part in exact}
    numbers = [word for word in (person.id, person.login) if not word.isdigit() or len(word) > 4]      # 01 is a chapter
    if any(word and word.casefold() in exact | stems for word in numbers):
        return True
    if person.email and re.search(rf"(?<![\w.+-]){re.escape(person.email)}(?![\w-])", name, re.IGNORECASE):
        return True
    german = _words(person.name.casefold().translate(UMLAUTS))
    return len(words) > 1 and (words <= tokens or german <= tokens)


def _by_name(people: Sequence[Person], words: str) -> Person | None:
    return _one(people, lambda one: bool(one.name) and sorted(_split(one.name)) == sorted(_split(words)))


def _one(people: Sequence[Person], fits: Callable[[Person], bool]) -> Person | None:
    """The one person that fits; None if there is none, or if there are several."""
    found = [one for one in people if fits(one)]
    return found[0] if len(found) == 1 else None


def _key(person: Person | None) -> str:
    return f"id {person.id}" if person else ""


def _split(text: str) -> list[str]:
    """The words of a name, without accents and case: Müller-Lüdenscheidt → muller, ludenscheidt."""
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss")).casefold()
    return re.findall(r"[^\W_]+", "".join(letter for letter in plain if not unicodedata.combining(letter)))


def _words(text: str) -> set[str]:
    return set(_split(text))


def _squashed(name: str) -> set[str]:
    """What Canvas makes of a name: its words in one, the family name first; which of them that is, we do not know."""
    plain, kept = _split(name), re.findall(r"[^\W_]+", name.casefold())
    return {"".join([*words[i:], *words[:i]]) for words in (plain, kept) for i in range(len(words))}


def _places(header: Sequence[str]) -> dict[str, int]:
    names = [re.sub(r"[\s_-]+", " ", title.strip().casefold()) for title in header]
    names = ["email" if name in ("e mail", "e mail address") else name for name in names]
    found = {}
    for kind, titles in COLUMNS.items():
        for title in titles:
            if title in names:
                found[kind] = names.index(title)
                break
    return found


def _person(row: Sequence[str], places: dict[str, int]) -> Person:
    has = {kind: row[place].strip() if place < len(row) else "" for kind, place in places.items()}
    name = has.get("name") or " ".join(filter(None, [has.get("first", ""), has.get("last", "")]))
    email, login = has.get("email", ""), has.get("login", "")
    return Person(has.get("id") or email or login, name, email, login)
