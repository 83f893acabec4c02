"""What a newcomer reads is what is run."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_continuous_integration_runs_the_readmes_test_command():
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert command.endswith("nox")
    assert f"    {command}\n" in (ROOT / "README.md").read_text()
