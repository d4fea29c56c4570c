"""The command `everloop-schemas`."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from everloop_schemas import examples
from everloop_schemas.__main__ import main
from everloop_schemas.generate import source_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the committed documents, as if just released, to break."""
    for name in ("generated", "released"):
        shutil.copytree(source_folder() / name, tmp_path / name)
    (tmp_path / "src" / "everloop_schemas").mkdir(parents=True)
    assert main(["--source", str(tmp_path), "release"]) == 0
    return tmp_path


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_an_edited_document_is_shown(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hand-edited JSON Schema would promise what no code keeps."""
    assert main(["--source", str(source), "generate", "--check"]) == 0
    _edit(source / "generated" / "ingest-data-arrived-v1.schema.json", '"minimum": 0', '"minimum": 7')
    (source / "generated" / "old-v1.schema.json").write_text("{}")
    capsys.readouterr()
    assert main(["--source", str(source), "generate", "--check"]) == 1
    said = capsys.readouterr().out
    assert "ingest-data-arrived-v1.schema.json is out of date" in said
    assert '+      "minimum": 0' in said
    assert "old-v1.schema.json is generated no longer" in said


def test_generate_writes_what_differs(source: Path) -> None:
    path = source / "generated" / "asyncapi.json"
    before = path.read_text("utf-8")
    path.unlink()
    assert main(["--source", str(source), "generate"]) == 0
    assert path.read_text("utf-8") == before


def test_a_breaking_change_fails_the_check(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = source / "released" / "serving-prediction-made-v1.schema.json"
    schema = json.loads(path.read_text("utf-8"))
    schema["properties"]["arm"]["enum"].append("shadow")
    path.write_text(json.dumps(schema))
    assert main(["--source", str(source), "check", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [(change["path"], change["rule"]) for change in report["changes"]] == [("$.arm", "values-removed")]
    assert not report["passed"]
    assert "consumers first" in report["order"]
    assert main(["--source", str(source), "release"]) == 1
    assert json.loads(path.read_text("utf-8")) == schema


def test_an_unchanged_tree_passes(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--source", str(source), "check", "--against", str(source / "released")]) == 0
    assert capsys.readouterr().out == "rollout: nothing to roll out\npassed\n"
    assert main(["--source", str(source), "release"]) == 0


def test_a_changed_example_fails_the_check(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Records like the released ones stay in the log for ever: they must stay tested."""
    path = source / "released" / "examples.json"
    digests = json.loads(path.read_text("utf-8"))
    name = next(iter(digests))
    path.write_text(json.dumps({**digests, name: "0" * 64, "gone-v1/full.json": "1" * 64}))
    assert main(["--source", str(source), "check"]) == 1
    said = capsys.readouterr().out
    assert f"examples/{name} was released and has changed" in said
    assert "examples/gone-v1/full.json was released and is gone" in said


def test_a_new_example_must_be_listed() -> None:
    assert list(examples.unlisted({"a": "1"}, {"a": "1", "b": "2"})) == [
        "examples/b is not in the manifest; run 'everloop-schemas generate'"
    ]
    assert examples.added_to({"a": "1"}, {"a": "2", "b": "2"}) == {"a": "1", "b": "2"}


def test_a_revision_is_a_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pull request is held against the branch that it wants to join."""
    source = tmp_path / "schemas"
    shutil.copytree(source_folder() / "generated", source / "generated")
    (source / "src" / "everloop_schemas").mkdir(parents=True)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert main(["--source", str(source), "check", "--against", "HEAD"]) == 2
    _edit(source / "generated" / "ingest-data-arrived-v1.schema.json", '"minimum": 0', '"minimum": 7')
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    assert main(["--source", str(source), "check", "--against", "HEAD"]) == 1
    assert "ingest-data-arrived-v1: $.labels: minimum was 7 and would be 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--source", "/nowhere", "check"], "is not the folder 'schemas'"),
        (["check", "--against", "no-such-revision"], "--against"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback reaches a user."""
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_an_empty_or_broken_baseline_is_said(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "released" / "ingest-data-arrived-v1.schema.json").write_text("{")
    assert main(["--source", str(source), "check"]) == 2
    assert "no JSON" in capsys.readouterr().err
    shutil.rmtree(source / "released")
    assert main(["--source", str(source), "check"]) == 2
    assert "everloop-schemas release" in capsys.readouterr().err


def test_help_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "generate" in capsys.readouterr().out
