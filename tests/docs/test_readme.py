"""README.md and README.ru.md say the same: who changes one has to change the other."""

import re
from itertools import zip_longest
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

from tests.support.environment import ROOT

ENGLISH, RUSSIAN = "README.md", "README.ru.md"
TEXTS = {name: (ROOT / name).read_text() for name in (ENGLISH, RUSSIAN)}
MARKDOWN = MarkdownIt("commonmark").enable("table")


def outline(text: str) -> list[tuple[int, tuple]]:
    """Return what a README must have in every language, in order: (line, what)."""
    line, before, found = 0, "", []
    for token in MARKDOWN.parse(text):
        line = token.map[0] + 1 if token.map else line  # a cell has none of its own
        found.append((line, (token.type, token.tag, shared(token, before))))
        before = token.type
    return found


def shared(token, before: str):
    """Return what a translation may not change in a token; `before` is the kind of the last one."""
    if token.type == "fence" and token.info == "bash":
        return re.sub(r"(?m)[ \t]*(?<!\S)#[ \t].*$", "", token.content)
    if token.type == "html_block":
        return re.sub(r'alt="[^"]*"', "", token.content)
    if token.type != "inline":
        return token.info, token.content
    code = [child.content for child in token.children if child.type == "code_inline"]
    in_a_cell = before == "td_open"  # elsewhere each language has its own order of words
    files = [target.partition("#")[0] for target in targets(token)]
    places = sorted(file.replace(".ru.png", ".png") for file in files)  # a picture in Russian
    return code if in_a_cell else sorted(code), places, figures(prose(token))


def targets(token) -> list[str]:
    """Return where the links and images of a paragraph lead."""
    found = [child.attrs for child in token.children if child.type in ("link_open", "image")]
    return [unquote(str(attrs.get("href") or attrs["src"])) for attrs in found]


def prose(token) -> str:
    parts = [child for child in token.children if child.type in ("text", "softbreak", "image")]
    return "".join(part.content or " " for part in parts)


def figures(text: str) -> list[str]:
    """Return the numbers in a text, as digits: 200,000 and 0.1 are 200 000 and 0,1 in Russian."""
    return sorted(re.findall(r"\d+", re.sub(r"(?<=\d)[.,\u00a0](?=\d)", "", text)))


def difference(english: str, russian: str) -> str | None:
    """Return the first place where the outlines differ; None if they are the same."""
    end = (0, "the end")
    for one, two in zip_longest(outline(english), outline(russian), fillvalue=end):
        if one[1] != two[1]:
            return f"{ENGLISH}:{one[0]} {one[1]}\n{RUSSIAN}:{two[0]} {two[1]}"
    return None


def test_both_readmes_have_the_same_commands_settings_figures_and_links_in_the_same_order():
    found = difference(TEXTS[ENGLISH], TEXTS[RUSSIAN])
    assert not found, found


CHANGES = {  # what is in a README, and what it becomes
    "a command more": ("\nmake demo\n", "\nmake demo\nmake down\n"),
    "a command in a table": ("| `make check`, `make test` |", "| `make check` |"),
    "output": ("Stop        make down", "Stop        make clean"),
    "the order of commands": ("`make bench`, `make chaos`", "`make chaos`, `make bench`"),
    "a heading's level": ("\n## ", "\n### "),
    "a paragraph more": ("\n\n1. **", "\n\nMIT\n\n1. **"),
    "a figure": (" 400 ", " 401 "),
    "a link": ("(docs/api.md)", "(docs/drift.md)"),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(name, change):
    text, (old, new) = TEXTS[name], CHANGES[change]
    assert old in text
    assert difference(text, text.replace(old, new, 1))


def test_a_comment_in_a_command_may_be_in_another_language():
    assert difference("```bash\nmake a  # b #1\n```", "```bash\nmake a     # б №1\n```") is None
    assert difference("```bash\nmake a#b\n```", "```bash\nmake a#c\n```")


def test_every_piece_of_prose_is_translated():
    texts = [prose(token) for token in MARKDOWN.parse(TEXTS[RUSSIAN]) if token.type == "inline"]
    assert len(texts) > 80
    words = [re.sub(r"\S*[./]\S*", "", text) for text in texts]  # without the names of files
    left = [text for text in words if re.search("[a-z]{2}", text) and not re.search("[а-я]", text)]
    assert not left


def anchor(heading: str) -> str:
    """Return the name under which GitHub lets a heading be linked to."""
    return "#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), ROOT / "bench/results.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_local_link_and_image_leads_somewhere(page):
    text = page.read_text()
    local = set(re.findall(r'<img src="([^":]+)"', text))
    for token in MARKDOWN.parse(text):
        if token.type == "inline":
            local |= {target for target in targets(token) if ":" not in target}
    anchors = {anchor(heading) for heading in re.findall(r"(?m)^#+ (.*)$", text)}
    assert [to for to in local if to not in anchors and not (page.parent / to).exists()] == []


@pytest.mark.parametrize("name", TEXTS)
def test_a_readme_is_short_and_leads_to_every_page(name):
    lines = TEXTS[name].splitlines()
    assert len(lines) <= 150
    assert {ENGLISH, RUSSIAN} <= set(re.findall(r"\]\(([^)]+)\)", TEXTS[name]))
    pages = [f"docs/{page.name}" for page in ROOT.glob("docs/*.md")]
    assert [page for page in pages if f"({page})" not in TEXTS[name]] == []
