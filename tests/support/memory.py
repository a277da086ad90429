"""Memory of a process, from /proc."""

from pathlib import Path


def memory(pid: int, kind: str) -> float:
    """Return what /proc says of a process under `kind`, such as VmRSS, in MB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) / 1024


def peak_memory(pid: int) -> float:
    """Return the most memory that a process ever had, in MB; 0 if it has ended."""
    return memory(pid, "VmHWM")
