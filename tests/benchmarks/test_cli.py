import pytest
from typer.testing import CliRunner

from benchmarks.cli import app


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "400"})
    return result.exit_code, result.output


@pytest.mark.parametrize(("option", "known"), [("--size", "normal"), ("--only", "relay-drain")])
def test_an_unknown_name_is_refused_and_the_known_ones_are_told(option: str, known: str) -> None:
    code, said = run(option, "nonsense")

    assert code == 2
    assert f"{option}: there is no nonsense" in said
    assert known in said


def test_without_a_generator_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    code, said = run()

    assert code == 3
    assert "apt-get install wrk" in said
