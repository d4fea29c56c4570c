"""`python3 -m everloop_kernel.prepare`: what an installation needs besides its services; every image has it.

    … prepare topics                                    create the platform's topics that do not exist
    … prepare token NAME --role ROLE [--pipeline NAME]  make a bearer token and print it, this once

Where the `everloop` command is at hand, `everloop topics create` and `everloop token create` do the same.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from aiokafka.errors import KafkaError
from everloop_schemas.topics import platform_topics

from everloop_kernel.admin import ensure_topics
from everloop_kernel.auth import ROLES, create_token
from everloop_kernel.errors import ConfigurationError, EverloopError, one_line
from everloop_kernel.settings import KafkaSettings, PlatformSettings

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code, 1 with one line about what is wrong."""
    wanted = _parser().parse_args(arguments)
    try:
        answer = _topics() if wanted.what == "topics" else _token(wanted)
    except (EverloopError, KafkaError, OSError) as error:
        sys.stderr.write(f"everloop: {one_line(error)}\n")
        return 1
    sys.stdout.write(f"{answer}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m everloop_kernel.prepare")
    kinds = parser.add_subparsers(dest="what", required=True)
    kinds.add_parser("topics", help="create the platform's topics that do not exist")
    token = kinds.add_parser("token", help="make a bearer token and print it, this once")
    token.add_argument("name", help="whose it is; the name stands in histories")
    token.add_argument(
        "--role", action="append", required=True, choices=sorted(ROLES), help="may be repeated"
    )
    token.add_argument("--pipeline", action="append", help="only for this pipeline; may be repeated")
    return parser


def _topics() -> str:
    created = asyncio.run(ensure_topics(KafkaSettings(), platform_topics()))
    return "\n".join(created) if created else "Every topic is there already."


def _token(wanted: argparse.Namespace) -> str:
    file = PlatformSettings().tokens_file
    if file is None:
        raise ConfigurationError("there is no tokens file", "Name one with EVERLOOP_TOKENS_FILE")
    return create_token(file, wanted.name, wanted.role, wanted.pipeline)


if __name__ == "__main__":
    sys.exit(main())
