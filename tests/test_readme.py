"""What a newcomer reads is what is run."""

from pathlib import Path

import convkernels as ck

ROOT = Path(__file__).parents[1]


def test_continuous_integration_runs_the_readmes_test_command():
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert command.endswith("nox")
    assert f"    {command}\n" in (ROOT / "README.md").read_text()


def test_the_citation_names_this_version():
    assert f"\nversion: {ck.__version__}\n" in (ROOT / "CITATION.cff").read_text()
