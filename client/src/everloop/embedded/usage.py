"""What a process and its children take."""

import psutil

__all__ = ["cpu_seconds", "descendants_memory_bytes", "family", "memory_bytes"]


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants; empty when it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def memory_bytes(pid: int) -> int:
    """Memory of a process and its descendants, a shared page counted by its part; 0 when it is gone."""
    return sum(_proportional_bytes(process) for process in family(pid))


def descendants_memory_bytes() -> int:
    """The same of all that this process has started, without itself."""
    return sum(_proportional_bytes(process) for process in psutil.Process().children(recursive=True))


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its living descendants since they started."""
    return sum(_cpu_seconds(process) for process in family(pid))


def _proportional_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
