"""Find the new lines of a log of which only the end is kept."""

OVERLAP_CHARACTERS = 200  # that identify the known part of a log whose beginning was cut off


def new_lines(log: str, known: str, complete: bool) -> tuple[str, str]:
    """Return the lines of a log that come after `known`, and what is `known` next time.

    A line counts when it has its line end, or when the log is complete.
    """
    start = len(known)
    if not log.startswith(known):
        start = overlap(log, known)
    end = len(log) if complete else log.rfind("\n") + 1
    return log[start:end].removesuffix("\n"), log[: max(start, end)]


def overlap(log: str, known: str) -> int:
    """Return how much of a log is known although its beginning was cut off; 0 of another log.

    Its lines may repeat at one end, so it is searched by the other end, too.
    """
    place = known.find(log[:OVERLAP_CHARACTERS])
    if place >= 0 and log.startswith(known[place:]):
        return len(known) - place
    last = known[-OVERLAP_CHARACTERS:]
    return log.find(last) + len(last) if last in log else 0
