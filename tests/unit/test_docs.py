"""What the documentation links to and names exists, and every page is in the navigation."""

import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

from saga_runtime import project_settings

ROOT = Path(__file__).parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob(".github/**/*.md"), *ROOT.glob("docs/**/*.md")})
# Their anchors are made of docstrings, or of the commands themselves, when the site is built.
GENERATED = ROOT / "docs/reference"
PACKAGES = ("config", "orders", "outbox", "brokers", "relay", "sagas", "saga_runtime")
FOLDERS = (*PACKAGES, "benchmarks", "deploy", "docker", "docs", "tests", "tools")
# Message types, topics, checks and files, which look like names of Python.
NO_CODE = re.compile(
    r"orders\.(place|cancel|commands|events)|sagas\.E\d+|config\.providers|.*\.(py|sql|com|md)"
)


def prose(page: Path) -> str:
    """Return a page's text without its code."""
    text = re.sub(r"^( *)(```+).*?^\1\2 *$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]+`", lambda code: code[0].replace("](", "]_("), text)


def links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^()\s]+(?:\([^()\s]*\))?)\)", prose(page))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_broken(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor and GENERATED not in target.parents:
            assert anchor in anchors(target), link


def code(page: Path) -> Iterator[str]:
    yield from re.findall(r"`([^`\n]+)`", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_and_name_of_ours_exists(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # of each version, not of this one
    for text in code(page):
        if path := re.fullmatch(rf"((?:{'|'.join(FOLDERS)})/[\w./-]*)(?:::.*)?", text):
            assert "NAME" in text or (ROOT / path[1]).exists(), text
        elif name := re.match(rf"((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?:\(.*)?$", text):
            assert NO_CODE.fullmatch(name[1]) or pkgutil.resolve_name(name[1]) is not None, text


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").glob("**/*.md")}
    listed = set(re.findall(r"[\w/.-]+\.md", navigation))
    assert listed == {page for page in pages if not re.fullmatch(r"adr/0.*", page)}


def test_every_django_setting_that_a_package_reads_is_documented() -> None:
    copied = PACKAGES[2:]
    keys = project_settings._KEYS
    sources = [path.read_text() for name in copied for path in (ROOT / name).rglob("*.py")]
    names = r"""\bsettings\.([A-Z_]+)\b|getattr\(settings, "([A-Z_]+)\""""
    read = {name for found in re.findall(names, "".join(sources)) for name in found if name}
    page = (ROOT / "docs/reference/django-settings.md").read_text()
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE))
    of_django = {"DATABASES", "MIDDLEWARE", "ROOT_URLCONF", "SETTINGS_MODULE", "USE_TZ"}
    assert read - of_django == {"SAGAZ", "DATABASE_URL"}
    assert keys.keys() <= documented
    old = [entry.flat for entry in keys.values() if entry.flat]
    assert set(re.findall(r"`([A-Z_]+)`", page)) >= {*old, *read} - of_django


def test_every_metric_is_documented() -> None:
    sources = [path.read_text() for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    made = r"""\b(?:Counter|Gauge|Histogram|Summary|\w+MetricFamily)\(\s*"(\w+)\""""
    metrics = set(re.findall(made, "".join(sources)))
    page = (ROOT / "docs/reference/metrics.md").read_text()
    rows = set(re.findall(r"^\| `(\w+?)(?:_total|_sum)?(?:\{\w+\})?`", page, re.MULTILINE))
    assert "outbox_relay_published" in metrics
    assert metrics == rows


def test_the_glossary_has_each_term_once_in_order() -> None:
    page = (ROOT / "docs/glossary.md").read_text()
    terms = re.findall(r"^\*\*(.+?)\.\*\*", page, re.MULTILINE)
    assert terms == sorted(set(terms), key=str.lower)


def test_blocks_in_lists_are_indented_as_the_site_wants_it() -> None:
    """By four spaces, after a blank line: GitHub takes two or three as well, the site does not."""
    for page in (ROOT / "docs").glob("**/*.md"):
        assert re.search(r"^ {1,3}```", page.read_text(), re.MULTILINE) is None, page.name
        is_in_list = is_after_blank = False
        for line in prose(page).split("\n"):
            is_item = re.match(r"(\d+\.|-) ", line) is not None
            is_in_list = is_item or (is_in_list and (not line or line.startswith(" ")))
            if is_in_list and is_after_blank:
                assert re.match(r" {2,3}\S", line) is None, f"{page.name}: {line}"
            is_after_blank = not line


def typed(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each `manage.py` line that the page has its reader type."""
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        command = re.search(r"manage(?:\.py)? (.+)", line)
        if command and "manage.py shell" not in line:
            yield shlex.split(command[1], comments=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_takes_the_arguments_that_are_typed(page: Path) -> None:
    commands = get_commands()
    for name, *arguments in typed(page):
        if name not in commands:
            assert page.name == "tutorial.md", name  # of the project that it makes
            continue
        command = load_command_class(commands[name], name)
        command.create_parser("manage.py", name).parse_args([a for a in arguments if a != "&"])


def test_commands_are_found_in_the_pages() -> None:
    assert ["sagas", "list", "--status", "parked"] in [
        arguments for page in PAGES for arguments in typed(page)
    ]
