"""A reader's folder and the pages: links that lead somewhere in each of them, answers and proofs that stay folded."""

import re
import shutil

import nbformat
import pytest
from workbook_fixtures import built

from fl_course.workbook.commands import export, places


@pytest.fixture
def course(monkeypatch, tmp_path):
    """The fixture as the course, and an empty folder."""
    monkeypatch.setattr(places, "course", built)
    return tmp_path / "mine"


def links(path):
    """(page, target) of every relative link in the markdown of a notebook or a text."""
    if path.suffix == ".ipynb":
        text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    found = re.findall(r"\]\(([^)\s]+)", text)
    return [target.partition("#")[0] for target in found if not target.startswith(("http", "#"))]


@pytest.mark.parametrize("solutions", [False, True])
def test_every_link_of_a_readers_folder_leads_to_a_file(course, solutions):
    places.copy_workbook(course, solutions)
    pages = [*course.rglob("*.ipynb"), *course.rglob("*.md")]
    assert {path.name for path in pages} == {"README.md", "glossary.md", "99_tiny.ipynb"}
    for page in pages:
        for target in links(page):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
    text = (course / "notebooks" / "99_tiny.ipynb").read_text(encoding="utf-8")
    assert "In the library: `fl_course/core.py`." in text
    assert ("(../solutions/99_tiny.ipynb)" in text) == solutions
    assert "(../exercises/99_tiny.ipynb)" in text
    for folder in ("notebooks", "exercises"):
        nbformat.validate(nbformat.read(course / folder / "99_tiny.ipynb", 4))


def test_the_readers_readme(course):
    places.copy_workbook(course)
    readme = course / "README.md"
    text = readme.read_text(encoding="utf-8")
    assert "- [99 · A tiny lesson](notebooks/99_tiny.ipynb), [exercises](exercises/99_tiny.ipynb)\n" in text
    assert "[symbols and words](notebooks/glossary.md)" in text
    readme.write_text("my notes")
    (course / "notebooks" / "99_tiny.ipynb").write_text("my work")
    places.copy_workbook(course, solutions=True)
    assert readme.read_text() == "my notes"
    places.copy_workbook(course, solutions=True, force=True)
    assert "[solutions](solutions/99_tiny.ipynb)" in readme.read_text(encoding="utf-8")


def test_a_readers_folder_without_glossary_and_with_odd_files(course, tmp_path, monkeypatch):
    bare = tmp_path / "bare"
    shutil.copytree(built(), bare)
    (bare / "notebooks" / "glossary.md").unlink()
    (bare / "notebooks" / "98_odd.ipynb").write_text("[]")
    monkeypatch.setattr(places, "course", lambda: bare)
    places.copy_workbook(course)
    text = (course / "README.md").read_text(encoding="utf-8")
    assert "[98_odd](notebooks/98_odd.ipynb)" in text
    assert "symbols and words" not in text


def test_proofs_and_answers_are_folded_in_pages(tmp_path):
    page = export.to_html(built() / "notebooks" / "99_tiny.ipynb", tmp_path / "99_tiny.html").read_text(encoding="utf-8")
    folds = re.findall(r"<details.*?</details>", page, re.S)
    assert len(folds) == 5
    assert sum("<summary>Answer</summary>" in fold for fold in folds) == 4
    (proof,) = [fold for fold in folds if "open me" in fold]
    assert re.search(r"<summary[^>]*>\s*Report, open me: the product, for `fl-course sweep`</summary>", proof)
    assert "report" in proof
    assert "the slope; the line still begins at 0." in "".join(folds)
    assert page.count("<summary") == page.count("</details>") == 5
    assert not re.search("[\ue000\ue001]", page)


def test_links_of_pages_lead_to_pages(tmp_path):
    source = built() / "notebooks" / "99_tiny.ipynb"
    page = export.to_html(source, tmp_path / "99_tiny.html", {"99_tiny"}).read_text(encoding="utf-8")
    targets = re.findall(r'<a href="([^"#]+)', page)
    assert "glossary.html" in targets
    for target in targets:
        assert target.startswith("https://") or (tmp_path / target).exists(), target
    assert "ipynb" not in "".join(targets)
    assert 'href="#recall"' in page
    assert 'id="recall"' in page
    words = (tmp_path / "glossary.html").read_text(encoding="utf-8")
    assert 'id="budget"' in words
    assert "What may be spent in all" in words


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("[a](02_b.ipynb)", "[a](02_b.html)"),
        ("[a](02_b.ipynb#x)", "[a](02_b.html#x)"),
        ("[a](03_c.ipynb)", "a"),
        ("[a](../exercises/02_b.ipynb)", "a"),
        ("[`fl_course/core.py`](../fl_course/core.py)", "`fl_course/core.py`"),
        ('[a](../notebooks/glossary.md#w "a tip (with brackets).")', '[a](glossary.html#w "a tip (with brackets).")'),
        ("[a](#x) [b](https://example.org/c.ipynb)", "[a](#x) [b](https://example.org/c.ipynb)"),
        ("```\n[a](03_c.ipynb)\n```", "```\n[a](03_c.ipynb)\n```"),
    ],
)
def test_link_pages(text, made):
    assert export.link_pages(text, {"02_b", "glossary"}) == made
