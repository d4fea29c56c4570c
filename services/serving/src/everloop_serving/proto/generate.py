"""Generates the gRPC modules from inference.proto: `python -m everloop_serving.proto.generate [--check]`.

Needs grpcio-tools, which only development has.
"""

import sys
import tempfile
from pathlib import Path

__all__ = ["main"]

_HERE = Path(__file__).parent
_SOURCE_ROOT = _HERE.parents[1]
_OUTPUTS = ("inference_pb2.py", "inference_pb2.pyi", "inference_pb2_grpc.py")


def _generate(target: Path) -> None:
    from grpc_tools import protoc  # type: ignore[import-untyped]  # noqa: PLC0415  (development's tool)

    source = _HERE / "inference.proto"
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"-I{_SOURCE_ROOT}", *outputs, str(source)]):
        raise SystemExit(f"{source} does not compile")


def main() -> None:
    """Write the modules, or with `--check` say whether the committed ones are current."""
    if "--check" not in sys.argv:
        _generate(_SOURCE_ROOT)
        return
    with tempfile.TemporaryDirectory() as folder:
        _generate(Path(folder))
        made = Path(folder) / _HERE.relative_to(_SOURCE_ROOT)
        stale = [name for name in _OUTPUTS if (made / name).read_bytes() != (_HERE / name).read_bytes()]
    if stale:
        raise SystemExit(
            f"not generated from inference.proto as it is: {', '.join(stale)}; run without --check"
        )


if __name__ == "__main__":
    main()
