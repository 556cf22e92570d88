"""Make the compact CF standard name table that ships with ionbeam from the published XML.

    python scripts/make_cf_table.py cf-standard-name-table.xml src/ionbeam/domain/cf_standard_names.txt

The XML is published at https://cfconventions.org/vocabularies.html. The same XML always gives the same bytes.
Format, UTF-8: three parts with an empty line between. A header: `#`, version, date, source. Then lines
`name<TAB>canonical unit` (empty for names of text and flags), and lines `old name<TAB>name[,name]` for the
aliases, each sorted.
"""

from __future__ import annotations

import argparse
import xml.etree.ElementTree as ElementTree
from pathlib import Path

PUBLISHED = "https://cfconventions.org/Data/cf-standard-names/{version}/src/cf-standard-name-table.xml"


def compact(xml: Path) -> str:
    """The table's text. Raises ValueError when the XML lacks its version or an entry contradicts another."""
    root = ElementTree.parse(xml).getroot()
    version = _text(root, "version_number")
    modified = _text(root, "last_modified")
    if not version.isdigit() or not modified:
        raise ValueError(f"{xml}: no version_number or last_modified; is this a CF standard name table?")
    units: dict[str, str] = {}
    for entry in root.iter("entry"):
        name, unit = entry.attrib["id"].strip(), _text(entry, "canonical_units")
        if units.setdefault(name, unit) != unit:
            raise ValueError(f"{xml}: {name} has the canonical units {units[name]!r} and {unit!r}")
    aliases: dict[str, set[str]] = {}
    for alias in root.iter("alias"):
        names = {(target.text or "").strip() for target in alias.iter("entry_id")}
        unknown = names - units.keys()
        if unknown or not names:
            raise ValueError(f"{xml}: alias {alias.attrib['id']} names {sorted(unknown)}, which are no entries")
        aliases.setdefault(alias.attrib["id"].strip(), set()).update(names)
    header = f"# {version} {modified} {PUBLISHED.format(version=version)}"
    entries = [f"{name}\t{unit}" for name, unit in sorted(units.items())]
    old = [f"{name}\t{','.join(sorted(names))}" for name, names in sorted(aliases.items()) if name not in units]
    return "\n\n".join([header, "\n".join(entries), "\n".join(old)]) + "\n"


def _text(element: ElementTree.Element, child: str) -> str:
    return " ".join((element.findtext(child) or "").split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("xml", type=Path, help="the published cf-standard-name-table.xml")
    parser.add_argument("table", type=Path, help="the file to write")
    arguments = parser.parse_args()
    arguments.table.write_text(compact(arguments.xml), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
