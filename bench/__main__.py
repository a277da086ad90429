"""Measure what the system promises of its speed; print one line a figure, and write a page.

    name<TAB>value<TAB>target<TAB>ok, or short        on stdout
    bench/results.md                                  the same with the machine's facts

Most figures are ratios to something that is measured in the same run, so they hold on other
machines too. The milliseconds of one row and of a swap, and the megabytes, are this machine's.

    make bench                             # all, in about ten minutes
    python -m bench stream files           # some
"""

import importlib
import os
import platform
import sys
import tempfile
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parent.parent

PARTS = ("stream", "files", "network", "jobs")
PAGE = ROOT / "bench/results.md"
BEGIN, END = "<!-- measured -->", "<!-- until here -->"


def machine() -> str:
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].split(": ")[1] if names else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    python = f"Python {platform.python_version()}"
    return f"{os.cpu_count()} cores ({processor}), {memory:.0f} GiB, {platform.system()}, {python}"


def main() -> None:
    chosen, measured = sys.argv[1:] or PARTS, []
    for part in chosen:
        with tempfile.TemporaryDirectory() as folder:
            for figure in importlib.import_module(f"bench.{part}").figures(Path(folder)):
                measured.append(figure)
                print(figure.line(), flush=True)
    if tuple(chosen) == PARTS:
        write(measured)


def write(measured: list) -> None:
    """Write what was measured between the two marks of the page; the rest of it stays."""
    lines = ["| figure | value | target | | measured |", "| --- | --- | --- | --- | --- |"]
    cells = ([*figure.line().split("\t"), figure.note] for figure in measured)
    lines += [f"| {' | '.join(row)} |" for row in cells]
    page = PAGE.read_text() if PAGE.exists() else f"{BEGIN}\n{END}\n"
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    made = f"{date.today()}, {machine()}\n\n" + "\n".join(lines)
    PAGE.write_text(f"{before}{BEGIN}\n{made}\n{END}{after}")


if __name__ == "__main__":
    main()
