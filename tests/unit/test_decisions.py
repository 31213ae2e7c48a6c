"""Each decision has a number of its own, and links to decisions lead somewhere."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/adr").glob("0*.md"))
INDEX = (ROOT / "docs/adr/index.md").read_text()


def test_each_has_a_number_of_its_own_which_its_title_says() -> None:
    numbers = [page.name[:4] for page in PAGES]
    assert numbers == [f"{n:04}" for n in range(1, len(PAGES) + 1)]
    assert [page.read_text()[:8] for page in PAGES] == [f"# {number}: " for number in numbers]


def test_links_to_them_lead_somewhere() -> None:
    known = {page.name for page in PAGES}
    texts = [page.read_text() for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *PAGES]]
    linked = {name for text in texts for name in re.findall(r"adr/([\w-]+\.md)", text)}
    assert linked
    assert linked <= known | {"index.md"}


def test_each_has_a_status_and_a_date_which_the_index_repeats() -> None:
    for page in PAGES:
        title, _, status = page.read_text().split("\n")[:3]
        found = re.match(r"\*\*Status\.\*\* (\w+), (\d{4}-\d{2}-\d{2})\.", status)
        assert found is not None, page.name
        number, name = title.removeprefix("# ").split(": ", 1)
        row = f"| [{number}]({page.name}) | {name} | {found[1].lower()} | {found[2]} |"
        assert row in INDEX.split("\n")
