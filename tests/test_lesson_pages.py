"""What the build makes of a lesson's text, and what it refuses: links, words, folded answers, pictures, proofs, questions."""

import re
import string
from pathlib import Path

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workbook_fixtures import FIXTURES, ROOT, build_notebooks, glossary, lesson_rules, notebook_links, notebook_sources

from fl_course.workbook import lesson

SourceError = notebook_sources.SourceError
TINY = (FIXTURES / "source" / "lessons" / "99_tiny.py").read_text(encoding="utf-8")
BOOK = glossary.read_glossary(FIXTURES / "source" / "glossary.md")
LESSONS = sorted((ROOT / "source" / "lessons").glob("*.py"))


def cells_of(text, tmp_path, name="99_tiny.py"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return notebook_sources.read(tmp_path / name)


def markdown(*texts):
    return [nbformat.v4.new_markdown_cell(text) for text in texts]


# --- rules of a lesson ---

PROOF = '# %% tags=["proof"]\n# Report, open me: the product, for `fl-course sweep`\n'
QUESTION_3 = "# **3.** What is [[prices|a tiny price]]?\n#\n# Answer: what a round costs.\n#\n"


def test_the_tiny_lesson_keeps_the_rules(tmp_path):
    lesson_rules.inspect_lesson("99_tiny", cells_of(TINY, tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"99.cost"', '"99.costs"', "cell 5: there is no text for '99.costs' in fl_course/workbook/alt/99.toml"),
        ('"99.cost"', '"98.cost"', "no text for '98.cost'"),
        ('"99.cost"', '"A straight line that rises."', 'write show(figure, "99.some_key")'),
        ('"99.cost"', "description", 'write show(figure, "99.some_key")'),
        ('show(figure, "99.cost")', "show(figure)", 'write show(figure, "99.some_key")'),
        ('show(figure, "99.cost")', "pass", "alt/99.toml describes cost, which no cell shows"),
        (PROOF, "# %%\n", "cell 7: report(…) in line 3 stands in the reader's way"),
        ("print(epsilon * rounds)", "assert epsilon", "cell 3: an assert in line 1 stands in the reader's way"),
        ("print(epsilon * rounds)", "for _ in [1]:\n    assert epsilon, 'x'", "cell 3: an assert in line 2"),
        ("# Report, open me: the product, for `fl-course sweep`\n", "", "begins with `# Proof, open me: what it shows`"),
        ("print(epsilon * rounds)", "print(" + "1 + " * 25 + "1)", "cell 3: line 1 has 108 characters; 100 fit"),
        ("# Answer: the slope; the line still begins at 0.\n", "#\n", "cell 6: `**Try it.**` without an answer"),
        ("# **Try it.** Double ε. What doubles?\n#\n# Answer", "# Now **Try it**: double ε\n#\n# So", "without an answer"),
        ("# %% [markdown]\n# ## Recall", '# %% [markdown] tags=["proof"]\n# ## Recall', "tag `proof` is for code"),
        (QUESTION_3, "", "has 2 questions"),
        (QUESTION_3, QUESTION_3 * 4, "has 6 questions"),
        ("# Answer: what a round costs.\n", "#\n", "question 3 of `## Recall` has no answer"),
        ("# ## Recall", "# ## Questions", "no section `## Recall`"),
        ("# **References**", "# %%\n1\n\n# %% [markdown]\n# **References**", "comes at the end, after the last code"),
        ("`fl_course/core.py`", "the core", "name the files of the library"),
        (", arXiv:1602.05629", "", "a reference without arXiv:…, doi:… or https://…: B. McMahan"),
        ("# **References**", "# **Papers**", "no `**References**`"),
    ],
)
def test_a_rule_that_is_broken_is_named(tmp_path, old, new, words):
    assert old in TINY
    with pytest.raises(SourceError) as refused:
        lesson_rules.inspect_lesson("99_tiny", cells_of(TINY.replace(old, new), tmp_path))
    assert str(refused.value).startswith("99_tiny.py")
    assert words in str(refused.value)


def test_a_description_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(lesson_rules.lesson, "descriptions", lambda chapter: {"cost": "A line."})
    with pytest.raises(SourceError, match="describe 'cost' in a sentence"):
        lesson_rules.inspect_lesson("99_tiny", cells_of(TINY, tmp_path))


@pytest.mark.parametrize("raw", [b"cost = A", b'cost = "caf\xe9"', b'\xef\xbb\xbfcost = "A"', b"cost = 3", b"[cost]\nx = 'y'"])
def test_texts_that_cannot_be_read_are_named(tmp_path, monkeypatch, raw):
    (tmp_path / "alt").mkdir()
    (tmp_path / "alt" / "99.toml").write_bytes(raw)
    monkeypatch.setenv("FL_COURSE_CHAPTERS", str(tmp_path))
    with pytest.raises(SourceError, match=r"^99_tiny\.py: alt/99\.toml cannot be read: "):
        lesson_rules.inspect_lesson("99_tiny", cells_of(TINY, tmp_path))


def test_every_file_of_texts_belongs_to_a_lesson():
    assert {path.stem for path in (ROOT / "fl_course" / "workbook" / "alt").glob("*")} <= {path.name[:2] for path in LESSONS}


def test_a_picture_without_words_is_refused():
    picture = nbformat.v4.new_output("display_data", data={"image/png": "x"}, metadata={"image/png": {"alt": "short"}})
    cell = nbformat.v4.new_code_cell("plt.show()", outputs=[picture])
    with pytest.raises(SourceError, match="a picture without an alternative text"):
        lesson_rules.check_outputs("99_tiny", "99_tiny, cell 1", cell)
    picture.metadata["image/png"]["alt"] = "A line that rises from zero."
    lesson_rules.check_outputs("99_tiny", "99_tiny, cell 1", cell)


def test_the_first_edition_names_lessons_that_exist():
    assert {path.stem for path in LESSONS} >= lesson_rules.FIRST_EDITION


@pytest.mark.parametrize("source", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_that_could_leave_the_first_edition_has_left_it(source, monkeypatch):
    """Once a lesson keeps every rule it is held to them."""
    if source.stem in lesson_rules.FIRST_EDITION:
        monkeypatch.setattr(lesson_rules, "FIRST_EDITION", set())
        with pytest.raises(SourceError):
            lesson_rules.inspect_lesson(source.stem, notebook_sources.read(source))


# --- texts of pictures ---


def test_show_takes_a_key_or_a_text(monkeypatch):
    said = []
    monkeypatch.setattr(lesson, "display", lambda data, raw, metadata: said.append(metadata["image/png"]["alt"]))
    figure, (ax,) = lesson.canvas()
    ax.plot([0, 1])
    lesson.show(figure, "99.cost")
    lesson.show(figure, "A line that rises from zero.")
    assert said == [lesson.descriptions("99")["cost"], "A line that rises from zero."]
    with pytest.raises(ValueError, match=r"did you mean '99\.cost'"):
        lesson.show(figure, "99.costs")
    with pytest.raises(ValueError, match=r"write it in alt/98\.toml"):
        lesson.show(figure, "98.cost")
    with pytest.raises(ValueError, match="in a sentence"):
        lesson.show(figure, "a line")


# --- links ---


def test_links_to_papers_and_files():
    text = "See arXiv:1602.05629, doi:10.1145/3133956.3133982. Not `arXiv:1602.05629`. A file: `fl_course/core.py`."
    assert notebook_links.link_files(notebook_links.link_papers(text), "x") == (
        "See [arXiv:1602.05629](https://arxiv.org/abs/1602.05629), "
        "[doi:10.1145/3133956.3133982](https://doi.org/10.1145/3133956.3133982). Not `arXiv:1602.05629`. "
        "A file: [`fl_course/core.py`](../fl_course/core.py)."
    )
    with pytest.raises(SourceError, match=r"there is no fl_course/cores\.py; was it moved"):
        notebook_links.link_files("`fl_course/cores.py`", "x")


SHIELDED = st.sampled_from([
    "`code [[budget]] budget`", "$budget_1$", "$$\nbudget\n$$", "[budget](x.ipynb)", '[a](x.md "the budget (all)")',
    "<b title='budget'>", "https://example.org/budget", "\n# The budget\n", "\n```\nbudget [[budget]]\n```\n",
    "![budget](x.png)", "[`fl_course/budget.py`](../x)",
])  # fmt: skip
PROSE = st.text(alphabet=string.ascii_letters.replace("b", "") + " .,\n", max_size=12)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(PROSE, SHIELDED), max_size=6), PROSE)
def test_code_formulas_links_and_headings_stay_as_they_are(parts, last):
    text = "".join(f"{prose} {shielded} " for prose, shielded in parts)
    (with_one,) = notebook_links.link_words([f"{text}\n\nA budget. {last}"], BOOK, "g.md", "x", True)
    assert with_one.startswith(text)
    assert with_one.count("g.md#budget") == 1
    assert with_one[len(text):].startswith('\n\nA [budget](g.md#budget "What may be spent in all.").')


@pytest.mark.parametrize(
    ("texts", "linked"),
    [
        (["the budget", "a budget"], [["budget"], []]),
        (["Budgets differ"], [["Budgets"]]),
        (["an allowance, a budget"], [["allowance"]]),
        (["a budgetary budget-line"], [[]]),
        (["a budget", "the [[budget]]"], [[], ["budget"]]),
        (["[[budget]] and [[what is left|budget]]"], [["budget", "what is left"]]),
        (["a tiny price"], [[]]),
        (["[[a tiny price]]"], [["a tiny price"]]),
        (["**References**: *The budget of* X"], [[]]),
        (["**budget**"], [["budget"]]),
    ],
)
def test_words_are_linked_where_they_are_first_used_or_marked(texts, linked):
    out = notebook_links.link_words(texts, BOOK, "g.md", "x", True)
    assert [re.findall(r"\[([^\]]*)\]\(g\.md#", text) for text in out] == linked


def test_a_marked_word_must_be_explained():
    with pytest.raises(SourceError, match=r"x: \[\[budgett\]\] is not in source/glossary.md; did you mean 'budget'"):
        notebook_links.link_words(["[[budgett]]"], BOOK, "g.md", "x", True)


def test_a_marked_word_needs_a_glossary():
    with pytest.raises(SourceError, match="there is no source/glossary"):
        notebook_links.furnished(Path("notebooks/01_x.ipynb"), markdown("a [[word]]"), {}, None, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("### a\n\nIt is explained in a sentence.\n\n### A\n\nIt is explained in a sentence.\n", "'a' stands under"),
        ("### a\n*also: b*\n\nIt is explained in a sentence.\n\n### b\n\nIt is explained in a sentence.\n", "'b' stands under"),
        ("### a\n\nshort\n", "explain it in a sentence"),
        ("### a\n*see: b*\n\nIt is explained in a sentence.\n", "write \\*also"),
        ("### a\n\nIt is explained, see [[zebra]].\n", r"\[\[zebra\]\] is not in"),
    ],
)
def test_a_bad_glossary_is_refused(tmp_path, text, words):
    (tmp_path / "glossary.md").write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=words):
        glossary.read_glossary(tmp_path / "glossary.md")


def test_the_glossary_of_the_course():
    """Its tool tips are plain sentences, its anchors plain letters, and lessons use it."""
    book = glossary.read_glossary(ROOT / "source" / "glossary.md")
    assert len(book.words) > 40
    for word in book.words:
        assert re.fullmatch(r"[a-z0-9-]+", word.anchor)
        assert re.search(r"[.!?]$", word.first), f"{word.name}: the first sentence is too long for a tool tip"
        assert not set('"|`*') & set(word.first)
    built = build_notebooks.derive(ROOT)
    assert "[arXiv:1602.05629](https://arxiv.org/abs/1602.05629)" in built[build_notebooks.GLOSSARY]
    for source in LESSONS:
        text = "\n".join(cell.source for cell in built[Path("notebooks", f"{source.stem}.ipynb")].cells)
        used = re.findall(r"glossary\.md#([a-z0-9-]+)", text)
        assert len(used) >= 3
        assert len(used) == len(set(used)), "a word is linked once a lesson"


HEADINGS = st.text(alphabet=string.ascii_letters + string.digits + " εδμ?!:,'()·–é%+$", min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(st.lists(HEADINGS, min_size=1, max_size=5))
def test_anchors_are_letters_that_every_host_follows(headings):
    texts = [f"text\n\n## {heading.strip()}\n\nmore" for heading in headings]
    slugs = [glossary.slug(heading) for heading in headings]
    if "" in slugs or len(set(slugs)) < len(slugs):
        with pytest.raises(SourceError, match="heading"):
            notebook_links.anchor_headings(texts, "x")
        return
    out, found = notebook_links.anchor_headings(texts, "x")
    for text, (_, anchor) in zip(out, found, strict=True):
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", anchor)
        assert f'<a id="{anchor}"></a>\n## ' in text


def test_a_heading_in_a_fence_is_no_heading():
    fence = "```python\n## not this\n```\n\n"
    out, found = notebook_links.anchor_headings([f"{fence}## This\n"], "x")
    assert out == [f'{fence}<a id="this"></a>\n## This\n']
    assert found == [("This", "this")]


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("b.ipynb", "'b.ipynb' leads nowhere"),
        ("../exercises/a.ipynb", "leads nowhere"),
        ("../fl_course/cores.py", "leads nowhere"),
        ("#nowhere", "has no anchor of this name"),
        ("c.ipynb#nowhere", "has no anchor of this name"),
        ("c.ipynb#there", None),
        ("#here", None),
        ("../fl_course/core.py", None),
        ("https://example.org/#x", None),
        ('c.ipynb#there "a tip (with brackets)"', None),
    ],
)
def test_links_that_lead_nowhere_are_refused(tmp_path, link, words):
    pages = {Path("notebooks/a.ipynb"): [f'<a id="here"></a>\n\n[x]({link})'], Path("notebooks/c.ipynb"): ['<a id="there"></a>']}
    if words is None:
        notebook_links.check_links(tmp_path, pages)
        return
    with pytest.raises(SourceError, match=re.escape(words)):
        notebook_links.check_links(tmp_path, pages)


def test_answers_are_folded_and_nothing_else():
    text = "Q?\n\nAnswer: it is\n*five*.\n\nmore\n\nThe Answer: no.\nAnswer: no."
    assert notebook_links.fold_answers(text) == (
        "Q?\n\n<details><summary>Answer</summary>\n\nit is\n*five*.\n\n</details>\n\nmore\n\nThe Answer: no.\nAnswer: no."
    )


# --- the way through the notebooks ---


def test_every_notebook_leads_on():
    """Of the repository: each lesson names its neighbours, sections and files, and its exercises and solutions if it has some;
    each exercise its lesson."""
    built = build_notebooks.derive(ROOT)
    lessons = sorted(path for path in built if path.parts[0] == "notebooks" and path.suffix == ".ipynb")
    for place, path in enumerate(lessons):
        cells = built[path].cells
        top, end = cells[1].source, cells[-1].source
        assert cells[1].metadata == {"tags": ["navigation"]}
        assert (f"]({lessons[place - 1].name})" in top) == (place > 0)
        if place + 1 < len(lessons):
            assert f"]({lessons[place + 1].name})" in top
            assert f"]({lessons[place + 1].name})" in end
        sections = re.findall(r"^## (.+)$", "\n".join(cell.source for cell in cells), re.M)
        assert all(f"[{section}](#" in top for section in sections)
        assert "](glossary.md)" in top
        has = Path("exercises", path.name) in built
        assert (f"](../exercises/{path.name})" in top) == (f"](../exercises/{path.name})" in end) == has
        assert (f"](../solutions/{path.name})" in end) == has
        if not has:
            continue
        assert cells[-1].metadata == {"tags": ["navigation"]}
        assert f"](../solutions/{path.name})" not in top, "the solutions come after the exercises"
        assert end.index(f"](../exercises/{path.name})") < end.index(f"](../solutions/{path.name})")
        exercises = built[Path("exercises", path.name)].cells
        assert f"](../notebooks/{path.name})" in exercises[1].source
        assert f"](../solutions/{path.name})" in exercises[-1].source
        assert f"](../exercises/{path.name})" in built[Path("solutions", path.name)].cells[1].source


def test_the_way_through_lessons_with_and_without_exercises():
    """0 and 11 have none; 9 leads to 10, which a comparison of numbers as words would get wrong."""
    lessons = [Path("notebooks", f"{name}.ipynb") for name in ("00_tour", "01_a", "09_b", "10_c", "11_d")]
    exercises = [Path(folder, lesson.name) for lesson in lessons[1:4] for folder in ("exercises", "solutions")]
    titles = {path: f"{int(path.name[:2])} · {path.parts[0]}" for path in [*lessons, *exercises]}
    way = {path.name[:2]: notebook_links.navigation(path, titles, True) for path in lessons}
    assert way["00"] == ("[1 · notebooks →](01_a.ipynb) | [symbols and words](glossary.md)", "[1 · notebooks →](01_a.ipynb)")
    assert way["01"][0].startswith("[← 0 · notebooks](00_tour.ipynb) | [9 · notebooks →](09_b.ipynb) | [exercises](../exercises")
    assert way["09"][1].endswith("[10 · notebooks →](10_c.ipynb)")
    assert way["10"][0].startswith("[← 9 · notebooks](09_b.ipynb) | [11 · notebooks →](11_d.ipynb)")
    assert way["11"] == ("[← 10 · notebooks](10_c.ipynb) | [symbols and words](glossary.md)", "")
