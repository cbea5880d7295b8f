"""Write panels as Markdown, as CSV and as plain text."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import commands, formats, summary
from .board import BoardInfo
from .cell_summary import CellSummary
from .print_agreement import AMONG, HEADS, LEGEND, agreements, among_prints
from .published import Published, beside
from .statistics import Panel, Row

if TYPE_CHECKING:
    import pandas

WIDTH = 100  # columns of a terminal that a plain table may fill
NAME_WIDTHS = (13, 10, 8)  # names are broken into lines of this width, the narrower where it saves a block


# Markdown


def markdown(board: BoardInfo, panels: Sequence[Panel]) -> str:
    """Return the board as a Markdown page for GitHub."""
    parts = [f"# {plain(board.title)}", plain(board.description)]
    if panels:
        parts += [
            f"{formats.ACCURACY} The worst case is the countermeasure that breaks a protector most.",
            summary.LEGEND,
        ]
        files = "by cell in [leaderboard.csv](leaderboard.csv), by protector in [protectors.csv](protectors.csv)"
        parts += [f"The sortable page is [index.html](index.html), the numbers are {files}."]
    else:
        parts += [
            "**There are 0 results on this board yet.** To make some:",
            f"```sh\n{commands.empty_board_command(board)}\n```",
        ]
    parts += itertools.chain.from_iterable(_markdown_panel(panel) for panel in panels)
    if panels:
        parts.append("## Reproduce")
    for panel in panels:
        heading = f"{code(panel.dataset.selector)}, {plain(formats.setting(panel))}:" if len(panels) > 1 else ""
        lines, needs = reproduce(board, panel)
        parts += [heading, "\n".join(["```sh", *lines, "```"]) if lines else "", plain(needs)]
    if board.notes:
        parts += ["## Notes", _bullets(board.notes)]
    parts += itertools.chain.from_iterable(_markdown_agreement(panel) for panel in panels)
    parts += itertools.chain.from_iterable(_markdown_published(table) for table in beside(panels))
    return "\n\n".join(part for part in parts if part) + "\n"


def reproduce(board: BoardInfo, panel: Panel) -> tuple[list[str], str]:
    """Return the commands that fill a panel, and what they need; or no command, and why."""
    lines = commands.board_commands(board, panel)
    return lines, commands.needs(board, panel, lines)


def _markdown_panel(panel: Panel) -> list[str]:
    columns = (*panel.columns, *panel.extra)
    noted = dict(formats.column_notes(panel))
    head = ["protector", "mean", "worst case"]
    head += [code(c) + (" \\*" if c in noted else "") + _brackets(formats.owned(panel, c)) for c in columns]
    head += ["n", "declared", "Linf max", "RMS", "PSNR", "SSIM"]
    rows = [_markdown_row(row, columns) for row in panel.rows]
    facts = [
        f"Data: {formats.data(panel)}, fingerprint {panel.dataset.fingerprint}.",
        f"{formats.seeds(panel)}.",
        formats.test_set(panel),
        "Linf and RMS in gray levels (of 255), PSNR in dB, measured on the stored 8-bit images.",
        *summary.facts(panel),
        *formats.remarks(panel),
    ]
    notes = [f"\\* {code(column)}: {plain(note)}" for column, note in noted.items()]
    title = f"## {code(panel.dataset.selector)}: {plain(formats.setting(panel))}"
    return [title, _bullets(facts), _markdown_summary(panel), pipes(head, rows), "\n\n".join(notes)]


def _markdown_summary(panel: Panel) -> str:
    rows = []
    for name, row in summary.lines(panel):
        cells = [f"{text} {code(of)}" if of else text for text, of in summary.texts(panel, row)]
        rows.append([plain(name), code(row.protector), *cells, formats.span(*row.n)])
    return pipes(["class", "protector", *summary.HEADS, "n"], rows)


def _markdown_row(row: Row, columns: Iterable[str]) -> list[str]:
    budget = row.budget
    name = code(row.protector) + (" (reference)" if row.reference else "")
    worst = formats.worst(row) + (f" {code(row.worst.countermeasure)}" if row.worst else "")
    cells = [_accuracy(row.cells.get(c)) for c in columns]
    measured = [formats.linf(budget), f"{budget.rms:.2f}", formats.psnr(budget.psnr), f"{budget.ssim:.3f}"]
    return [name, formats.mean(row), worst, *cells, formats.span(*row.n), plain(budget.declared), *measured]


def _markdown_agreement(panel: Panel) -> list[str]:
    found = agreements(panel)
    if not found:
        return []
    title = f"## Agreement with print: {code(panel.dataset.selector)}, {plain(formats.setting(panel))}"
    parts = [title, plain(LEGEND)]
    for agreement in found:
        names = ", ".join(f"{code(ours)} ({plain(printed)})" for ours, printed in agreement.rows)
        parts += [f"{plain(agreement.text)} Rows: {names}.", pipes(list(HEADS), agreement.lines())]
    if prints := among_prints(panel):
        parts += [plain(AMONG), _bullets([agreement.text for agreement in prints])]
    return parts


def _markdown_published(table: Published) -> list[str]:
    head = ["method", "our name", "mean", "worst case", *map(code, table.columns)]
    rows = []
    for row in table.rows:
        worst = f"{formats.percent(row.accuracies[row.worst])} {code(row.worst)}"
        cells = [formats.percent(row.accuracies[c]) if c in row.accuracies else formats.MISSING for c in table.columns]
        ours = code(row.protector) if row.protector else formats.MISSING
        rows.append([plain(row.method), ours, formats.percent(row.mean), worst, *cells])
    notes = [f"{row.method}, {note}" for row in table.rows for note in row.notes]
    label = f"{table.dataset}: {PUBLISHED}"
    return [f"## {plain(table.title)}", plain(label), pipes(head, rows), _bullets(notes)]


PUBLISHED = (
    "printed numbers, single runs. Protocol and victim differ from those of the measured tables, so the two are never "
    "mixed. Means are recomputed from the columns, and count a column that repeats plain training with it."
)


def pipes(head: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """Return a table in Markdown, its columns padded, those of ``left`` to the left and others to the right."""
    widths = [max([len(name) + PADDING, *map(len, column)]) for name, *column in zip(head, *rows, strict=True)]

    def line(texts: Sequence[str]) -> str:
        padded = enumerate(zip(texts, widths, strict=True))
        return f"| {' | '.join(text.ljust(width) if i in left else text.rjust(width) for i, (text, width) in padded)} |"

    rules = enumerate("-" * (width + 1) for width in widths)
    rule = "|".join(f":{dashes}" if i in left else f"{dashes}:" for i, dashes in rules)
    return "\n".join([line(head), f"|{rule}|", *map(line, rows)])


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {plain(line)}" for line in lines)


def plain(text: str) -> str:
    """Escape text so that Markdown and HTML read it as itself, in one line."""
    return escaped(" ".join(text.split()))


def escaped(text: str) -> str:
    """Escape text so that Markdown and HTML read it as itself; spaces stay as they are."""
    return re.sub(r"([\\`*<>\[\]|])", r"\\\1", text).replace("&", "&amp;")


def code(text: str) -> str:
    """Return a code span that holds any text, also in a table."""
    text = " ".join(text.split()).replace("|", "\\|")
    ticks = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{ticks} {text} {ticks}" if "`" in text else f"`{text}`"


# CSV

CSV: dict[str, Callable[[Panel, Row, CellSummary], Any]] = {
    "dataset": lambda p, r, c: p.dataset.selector,
    "source": lambda p, r, c: p.dataset.source,
    "fingerprint": lambda p, r, c: p.dataset.fingerprint,
    "victim": lambda p, r, c: p.victim,
    "protocol": lambda p, r, c: p.protocol,
    "protocol_version": lambda p, r, c: p.protocol_version,
    "precision": lambda p, r, c: p.precision,
    "fraction": lambda p, r, c: p.fraction,
    "protector": lambda p, r, c: r.protector,
    "reference": lambda p, r, c: r.reference,
    "countermeasure": lambda p, r, c: c.countermeasure,
    "on_board": lambda p, r, c: c.countermeasure in p.columns,
    "n": lambda p, r, c: c.n,
    "seeds": lambda p, r, c: " ".join(map(str, c.seeds)),
    "accuracy": lambda p, r, c: round(c.mean, 4),
    "ci95_half_width": lambda p, r, c: _rounded(c.half_width),
    "ci95_low": lambda p, r, c: _rounded(c.accuracy.low),
    "ci95_high": lambda p, r, c: _rounded(c.accuracy.high),
    "ci95_of": lambda p, r, c: "test set" if c.n == 1 else "seeds and test set",
    "peak": lambda p, r, c: round(c.peak, 4),
    "peak_epoch": lambda p, r, c: " ".join(f"{x.metrics.peak_epoch:g}" for x in c.results),
    "clean_images": lambda p, r, c: p.clean_data(c.countermeasure).images,
    "binomial_error": lambda p, r, c: _rounded(c.binomial_error),
    "declared": lambda p, r, c: r.budget.declared,
    "linf_max": lambda p, r, c: r.budget.linf_max,
    "rms": lambda p, r, c: _rounded(r.budget.rms),
    "psnr": lambda p, r, c: _rounded(r.budget.psnr),
    "ssim": lambda p, r, c: _rounded(r.budget.ssim),
    "commits": lambda p, r, c: " ".join(dict.fromkeys(x.environment.commit or "unknown" for x in c.results)),
    "authors": lambda p, r, c: "; ".join(dict.fromkeys(x.author for x in c.results if x.author)),
    "keys": lambda p, r, c: " ".join(c.keys),
}


def csv(board: BoardInfo, panels: Sequence[Panel]) -> str:
    """Return one line a cell.

    ``accuracy`` is the mean over ``n`` seeds in percent; at n = 1 its interval is of the test set.
    """
    table = frame(panels)
    table.insert(0, "board", board.name)
    return str(table.to_csv(index=False, lineterminator="\n"))


def frame(panels: Sequence[Panel]) -> pandas.DataFrame:
    """Return one row a cell; see ``CSV`` for the columns."""
    import pandas as pd

    cells = [(panel, row, cell) for panel in panels for row in panel.rows for cell in row.cells.values()]
    lines = [[read(*cell) for read in CSV.values()] for cell in cells]
    return pd.DataFrame(lines, columns=pd.Index(CSV), dtype=object)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


# Plain text


def terminal(panel: Panel) -> str:
    """Return a plain table for a terminal: countermeasures down, protectors across, in blocks where they are many."""
    lines = [formats.data(panel), formats.setting(panel), formats.ACCURACY, f"{formats.seeds(panel)}."]
    notes = [f"* {column}: {note}" for column, note in formats.column_notes(panel)]
    notes += [*summary.facts(panel), *formats.remarks(panel)]
    return "\n\n".join([paragraph(lines), *_blocks(panel), *([paragraph(notes)] if notes else [])]) + "\n"


GAP, PADDING = 2, 2  # characters between columns, and that every head is wider than its name, as in tabulate


def _blocks(panel: Panel) -> Iterator[str]:
    """Yield blocks of as many protectors side by side as the width takes, and at least one."""
    labels = _labels(panel)
    room = WIDTH - max(len("countermeasure") + PADDING, *map(len, labels))
    first = 0
    while first < len(panel.rows):
        fits = [(width, _fitting(panel, first, width, room)) for width in NAME_WIDTHS]
        width, columns = max(fits, key=lambda fit: len(fit[1]))  # of equals the one with the longest lines of names
        if not columns:
            width = NAME_WIDTHS[-1]
            columns = [_column(panel, panel.rows[first], width)]
        yield _block(labels, columns)
        first += len(columns)


def _fitting(panel: Panel, first: int, width: int, room: int) -> list[list[str]]:
    """The columns of as many protectors, from row ``first`` on, as ``room`` takes."""
    columns = []
    for row in itertools.islice(panel.rows, first, None):
        head, *body = column = _column(panel, row, width)
        room -= GAP + max(_width(head) + PADDING, *map(_width, body))
        if room < 0:
            break
        columns.append(column)
    return columns


def _width(text: str) -> int:
    return max(map(len, text.split("\n")))


def _labels(panel: Panel) -> list[str]:
    """What the lines of a block are called."""
    noted = dict(formats.column_notes(panel))
    columns = (*panel.columns, *panel.extra)
    names = [c + (" *" if c in noted else "") + _brackets(formats.owned(panel, c)) for c in columns]
    return [
        *names,
        "mean",
        "worst case",
        "recovered share",
        "broken by",
        "rank in class",
        "declared",
        "Linf max (of 255)",
        "RMS (of 255)",
        "PSNR (dB)",
    ]


def _column(panel: Panel, row: Row, width: int) -> list[str]:
    """A protector's column: its name over lines, then the text of every line."""
    budget = row.budget
    return [
        "\n".join(folded(row.protector, width)),
        *(_accuracy(row.cells.get(c)) for c in (*panel.columns, *panel.extra)),
        formats.interval(row.mean) if row.mean else f"{row.done}/{len(row.columns)} cells",
        "\n".join([formats.worst(row), *folded(_worst_name(row), width)]),
        formats.recovered(row),
        f"{len(row.recovery.broken)} of {len(row.recovery.shares)}" if row.recovery else formats.MISSING,
        panel.ranks[row.protector].text() if row.protector in panel.ranks else formats.MISSING,
        "\n".join(folded(budget.declared, width)),
        f"{budget.linf_max}{' !' if budget.exceeds else ''}",
        f"{budget.rms:.2f}",
        formats.psnr(budget.psnr),
    ]


def _block(labels: Sequence[str], columns: Sequence[Sequence[str]]) -> str:
    from tabulate import SEPARATING_LINE, tabulate

    head = ["countermeasure", *(column[0] for column in columns)]
    lines = zip(labels, *(column[1:] for column in columns), strict=True)
    body: list[list[str] | str] = [list(line) for line in lines]
    body[-4:-4] = [SEPARATING_LINE]  # above what was measured on images, and above means
    body[-10:-10] = [SEPARATING_LINE]
    align = ["left", *["right"] * len(columns)]
    return str(tabulate(body, headers=head, tablefmt="simple", disable_numparse=True, colalign=align))


def _brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _accuracy(cell: CellSummary | None) -> str:
    return formats.cell(cell) if cell else formats.MISSING


def _worst_name(row: Row) -> str:
    return row.worst.countermeasure if row.worst else ""


_BREAKS = (r"(?=\[)|(?<=[,+ ])", r"(?<=[-=])")  # where a name breaks first, and where only if it must


def folded(name: str, width: int, breaks: tuple[str, ...] = _BREAKS) -> list[str]:
    """Break a name into lines of ``width`` as far as it has breaks; a word is cut only at the largest width."""
    if len(name) <= width:
        return [name]
    if not breaks:
        return [name[i : i + NAME_WIDTHS[0]] for i in range(0, len(name), NAME_WIDTHS[0])]
    lines = [""]
    for piece in re.split(breaks[0], name):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [part for line in lines for part in folded(line.strip(), width, breaks[1:])]


def paragraph(lines: Iterable[str]) -> str:
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in lines)
