"""HTML pages that need nothing from elsewhere: their elements, and the page around them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

Content = str | Element | Iterable["Content"]


def element(tag: str, *contents: Content, **attributes: str) -> Element:
    """An element of a page. Texts lose their line breaks and characters that show nothing; an
    attribute is written `class_` or `data_column`."""
    made = Element(tag, {name.strip("_").replace("_", "-"): v for name, v in attributes.items()})
    _add(made, contents)
    return made


def _add(made: Element, content: Content) -> None:
    if isinstance(content, Element):
        made.append(content)
    elif not isinstance(content, str):
        for part in content:
            _add(made, part)
    else:
        text = "".join(c for c in re.sub(r"\s+", " ", content) if c.isprintable())
        if len(made):
            made[-1].tail = (made[-1].tail or "") + text
        else:
            made.text = (made.text or "") + text


def listed(tag: str, items: Iterable[Content]) -> Element:
    return element(tag, [element("li", item) for item in items])


def grid(
    look: str, head: Sequence[str], groups: Mapping[str, Iterable[Sequence[Content]]]
) -> Element:
    """A table of "numbers", "words" or both (""), that scrolls; groups of rows by their title, ""
    for none.

    With "sortable" in its look, a click on a head sorts by it. A cell that is an element with a
    `data-sort` sorts by that.
    """
    table = element("table", class_=look)
    names = [element("th", name, scope="col") for name in head]
    table.append(element("thead", element("tr", names)))
    for title, rows in groups.items():
        body = SubElement(table, "tbody")
        if title:
            name = element("th", title, colspan=f"{len(head)}", scope="rowgroup")
            body.append(element("tr", name, class_="group"))
        for first, *rest in rows:
            columns = zip(head[1:], rest, strict=True)
            cells = [element("td", cell, data_column=column) for column, cell in columns]
            named = {"data_column": head[0]} if "sortable" in look else {}
            body.append(element("tr", element("th", first, scope="row", **named), cells))
    return element("div", table, class_="wide")


def page_of(title: str, elements: Iterable[Element]) -> str:
    """A page with a title, and below it the elements; it has a script if a table is sortable."""
    body = element("body", element("h1", title), elements)
    ElementTree.indent(body, "")
    page = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    text = ElementTree.tostring(body, encoding="unicode", method="html")
    sortable = any("sortable" in table.get("class", "") for table in body.iter("table"))
    script = f"<script>{SORT}</script>\n" if sortable else ""
    return page.substitute(title=escape(title), body=text, script=script)


# Numbers by their size, everything else as words; what is empty stays below.
SORT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("thead th")], body = table.tBodies[0];
  const key = (row, i) => {
    const cell = row.children[i], own = cell.querySelector("[data-sort]");
    return own ? own.dataset.sort : cell.textContent.trim();
  };
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a, i), key(b, i)];
        if (!x || !y) return !x - !y;
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return up ? order : -order;
      });
      body.append(...rows);
    });
  });
}
"""
