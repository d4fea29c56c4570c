"""The command `everloop-schemas`: generate the contracts' documents, check and release them.

Exit codes: 0 all is well, 1 something was found, 2 the command could not do its work.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from everloop_schemas.check import BaselineError, Report, check, read_baseline, release
from everloop_schemas.generate import documents, outdated, source_folder, write

__all__ = ["main"]

_FOUND, _FAILED = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    options = _parser().parse_args(arguments)
    source: Path = options.source
    if not (source / "src" / "everloop_schemas").is_dir():
        return _fail(f"{source} is not the folder 'schemas' of a source tree; name it with --source")
    try:
        return int(options.run(options, source))
    except BaselineError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}; make it readable and writable")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="everloop-schemas", description=__doc__)
    parser.add_argument(
        "--source", type=Path, default=source_folder(), help="the folder 'schemas' to work in"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    generating = commands.add_parser(
        "generate", help="write JSON Schemas, AsyncAPI and the examples' manifest"
    )
    generating.add_argument(
        "--check", action="store_true", help="write nothing; fail where a file is out of date"
    )
    generating.set_defaults(run=_generate)
    checking = commands.add_parser("check", help="compare schemas and examples with the released ones")
    checking.add_argument("--against", metavar="DIR|REVISION", help="default: schemas/released")
    checking.add_argument("--json", action="store_true", help="answer with one JSON object")
    checking.set_defaults(run=_check)
    releasing = commands.add_parser("release", help="check, then make the current schemas the released ones")
    releasing.set_defaults(run=_release)
    return parser


def _generate(options: argparse.Namespace, source: Path) -> int:
    generated = documents(source)
    if not options.check:
        for path in write(generated):
            _say(f"wrote {path}")
        return 0
    found = list(outdated(generated, source))
    for problem in found:
        _say(problem)
    _say(
        "run 'everloop-schemas generate' and commit what it writes"
        if found
        else "every document is up to date"
    )
    return _FOUND if found else 0


def _check(options: argparse.Namespace, source: Path) -> int:
    report = check(read_baseline(options.against, source))
    _say(json.dumps(_as_json(report), indent=2) if options.json else _as_text(report))
    return 0 if report.passed else _FOUND


def _release(_: argparse.Namespace, source: Path) -> int:
    if (source / "released").is_dir():
        report = check(read_baseline(None, source))
        _say(_as_text(report))
        if not report.passed:
            return _FOUND
    _say(f"released {len(release(source))} files into {source / 'released'}")
    return 0


def _as_json(report: Report) -> dict[str, object]:
    return {
        "passed": report.passed,
        "order": report.order(),
        "changes": [{**asdict(change), "order": str(change.order)} for change in report.changes],
        "examples": report.examples,
    }


def _as_text(report: Report) -> str:
    lines = [*map(str, report.changes), *report.examples]
    lines.append(f"rollout: {report.order()}")
    lines.append(
        "passed" if report.passed else "failed: an event within a version may only gain optional fields"
    )
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _fail(message: str) -> int:
    sys.stderr.write(f"everloop-schemas: {message}\n")
    return _FAILED


if __name__ == "__main__":
    sys.exit(main())
