"""The end of the demo, for a person."""

from typing import Any

from rich.console import Console
from rich.table import Table

MEBIBYTE = 1 << 20


def show(console: Console, report: dict[str, Any], lineage: str, command: str) -> None:
    """Print the report's main figures, one prediction's lineage, and the command that prints it again."""
    console.print(_figures(report))
    console.print(_runs(report["runs"]))
    if lineage:
        console.print(f"[bold]One prediction, followed to the rows that trained its model[/] ($ {command})")
        console.print(lineage, markup=False, highlight=False)


def _figures(report: dict[str, Any]) -> Table:
    counts, loss, trace = report["counts"], report["prequential_log_loss"], report["trace"]
    table = Table(title="New York's flights of 2013, replayed", show_header=False)
    rows = {
        "records": f"{counts['sent']:,} sent = {counts['accepted']:,} accepted"
        f" + {counts['quarantined']:,} quarantined + {counts['duplicates']:,} duplicates",
        "predictions": f"{counts['predicted']:,} made, {counts['joined']:,} joined with their outcome",
        "requests": f"{counts['requests']:,}, {counts['failed_requests']} failed",
        "models": f"{len(report['approvals'])} approved, {len(report['rejections'])} rejected,"
        f" swapped to {', '.join(map(str, report['swaps']['versions'])) or 'none'}",
        "drift": "; ".join(", ".join(features[:3]) for features in report["drift"]) or "none detected",
        "log loss": "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in loss.items()),
        "trace": f"{trace['trace_id']}: {trace['spans']} spans of {len(trace['services'])} services"
        if trace
        else "no prediction was traced",
        "took": f"{report['seconds']:.0f} s, at most {report['peak_memory_bytes'] / MEBIBYTE:,.0f} MiB",
    }
    for name, text in rows.items():
        table.add_row(name, text)
    return table


def _runs(runs: list[dict[str, Any]]) -> Table:
    table = Table("model", "started by", "outcome", "rows", "trigger to swap", title="Training runs")
    for run in runs:
        swap = run.get("seconds", {}).get("trigger_to_swap")
        table.add_row(
            str(run.get("model_version", "")),
            f"{run['trigger']}: {run['reason']}",
            run["outcome"],
            f"{run.get('rows', 0):,}",
            f"{swap:.1f} s" if swap is not None else "",
        )
    return table
