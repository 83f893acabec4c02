"""What becomes of the comparison's rows: JSON, merging, means, tables, the picture, and the command."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict, replace

import pytest

pytest.importorskip("typer", reason="the command line needs the extra convkernels[cli]")
pytest.importorskip("matplotlib", reason="the command line needs the extra convkernels[cli]")
pytest.importorskip("threadpoolctl", reason="the command line needs the extra convkernels[cli]")

from helpers import load_script
from PIL import Image
from rich.console import Console

from convkernels.cli import main
from convkernels.cli.bench import machine, picture, run, tables
from convkernels.cli.bench.problems import Layer
from convkernels.cli.bench.results import SCHEMA, Report, Row, Timed, geometric_mean, load, merged
from convkernels.cli.bench.summary import Mean, errors, means, worst
from convkernels.cli.errors import CommandError

TINY = "n1g1i64o64_in2x2_k1x1_s1x1_p0+0x0+0_d1x1"
LAYERS = [Layer(TINY, "net:1"), Layer("pool:n1c4_in4x4_k2x2_s2x2_p0+0x0+0_d1x1_max", "net:2")]
HERE = {"processor": "P", "platform": "L", "PyTorch": "2.6"}


def row(ratio=2.0, **given) -> Row:
    seconds = given.pop("seconds", 1e-3)
    place = {"problem": TINY, "direction": "forward", "layout": "NCHW", "threads": 1, "precision": "default"}
    place |= {"kind": "1x1", "dtype": "float32", "batch": 1, "implementation": "direct", "source": "abc"}
    peers = {} if ratio is None else {"PyTorch": Timed("contiguous", seconds * ratio, 100)}
    found = {"rate": 1.0, "unit": "GFLOP/s", "peak_share": 0.5, "memory": 2**20, "error": 0.01}
    return Row(
        **place | found | {"peers": peers, "peer": "PyTorch" * bool(peers), "ratio": ratio, "seconds": seconds} | given
    )


def declined(**given) -> Row:
    return replace(row(None, **given), seconds=None, implementation="", declined="no reason")


@pytest.fixture
def report():
    rows = (row(), row(0.5, layout="NHWC"), declined(direction="input_grad"))
    return Report(HERE, {"alternations": 9, "repeats": 3, "shortest": 0.002}, {"GFLOP/s float32 1t": 100.0}, rows)


# JSON


def test_a_report_is_the_same_after_saving_and_loading(report, tmp_path):
    file = tmp_path / "report.json"
    report.save(file)
    assert load(file) == report
    assert json.loads(file.read_text())["schema"] == SCHEMA
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_new_rows_replace_old_ones_of_the_same_cell(report):
    again = report.with_rows([row(3.0), row(4.0, threads=2)])
    assert [one.ratio for one in again.rows] == [3.0, 0.5, None, 4.0]
    assert len(report.rows) == 3


def test_the_later_report_wins_a_merge(report):
    later = Report(
        HERE | {"PyTorch": "2.7"}, {"alternations": 5}, {"GB/s 1t": 20.0}, (row(3.0), row(4.0, batch=8, problem="x"))
    )
    both = merged([report, later], ["a", "b"])
    assert [one.ratio for one in both.rows] == [3.0, 0.5, None, 4.0]
    assert both.environment["PyTorch"] == "2.7"
    assert both.rules == {"alternations": 5}
    assert both.peaks == {"GFLOP/s float32 1t": 100.0, "GB/s 1t": 20.0}


def test_reports_of_two_machines_do_not_merge(report):
    other = replace(report, environment=HERE | {"processor": "Q"})
    with pytest.raises(CommandError, match=r"b.json is of processor 'Q', a.json of 'P': not comparable"):
        merged([report, other], ["a.json", "b.json"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"cannot read .*report.json: No such file or directory"),
        ("{", r"report.json holds no JSON: "),
        ("[]", rf"report.json has the schema None, must be '{SCHEMA}'"),
        ('{"schema": "other/1"}', rf"report.json has the schema 'other/1', must be '{SCHEMA}'"),
        (f'{{"schema": "{SCHEMA}"}}', r"report.json is no complete report: KeyError: 'rows'"),
        (f'{{"schema": "{SCHEMA}", "rows": [{{"speed": 1}}]}}', r"a row has the unknown fields \['speed'\]"),
        (f'{{"schema": "{SCHEMA}", "rows": [{{"peers": {{}}}}]}}', r"is no complete report: TypeError: "),
        (f'{{"schema": "{SCHEMA}", "rows": [7]}}', r"is no complete report: TypeError: "),
    ],
)
def test_a_file_that_is_no_report(tmp_path, text, message):
    file = tmp_path / "report.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(CommandError, match=message):
        load(file)


def test_a_place_that_cannot_be_written(report, tmp_path):
    with pytest.raises(CommandError, match=r"cannot write .*absent"):
        report.save(tmp_path / "absent" / "report.json")
    with pytest.raises(CommandError, match="it is a directory"):
        report.save(tmp_path)


# Means


def test_geometric_means():
    assert geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2.0)
    assert geometric_mean([]) != geometric_mean([])  # nan


def test_a_mean_counts_what_ran():
    assert Mean.of([row(4.0), row(0.25, peak_share=None), row(None), declined()]) == Mean(3, 1.0, 0.25, 1, 0.5)
    assert Mean.of([declined()]) == Mean(0, None, None, 0, None)


def test_means_are_grouped_in_order():
    rows = [row(kind="max pool"), row(8.0, kind="3x3", batch=8), row(2.0, kind="3x3"), row(kind="1x1")]
    found = means(rows, "kind")
    assert list(found) == [("1x1",), ("3x3",), ("max pool",)]
    assert found["3x3",].ratio == pytest.approx(4.0)
    assert list(means(rows, "kind", "batch")) == [("1x1", 1), ("3x3", 1), ("3x3", 8), ("max pool", 1)]
    assert list(means(rows)) == [()]
    assert list(means([row(direction="backward"), row()], "direction")) == [("forward",), ("backward",)]


def test_the_worst_come_first():
    rows = [row(2.0), row(0.5), row(None), row(1.0), declined()]
    assert [one.ratio for one in worst(rows, 2)] == [0.5, 1.0]


def test_errors_are_the_largest_of_each_implementation():
    rows = [row(error=0.1), row(error=0.3), row(error=None), row(error=0.2, implementation="winograd")]
    assert errors(rows) == {"direct": 0.3, "winograd": 0.2}


# Tables and the picture


def printed(made) -> str:
    console = Console(width=120, file=io.StringIO())
    for table in made:
        console.print(table)
    return " ".join(console.file.getvalue().split())


def test_tables_tell_of_everything(report):
    text = printed(tables.all_tables(report, every_cell=True))
    for part in (
        "best peer's time over ours, geometric means, precision default",
        "Over",
        "Largest errors",
        "The least ratios",
        "Every cell",
        "Declined",
        "no reason",
        f"{TINY}",
        "forward NHWC 1t direct (default)",
        "1.0 MiB",
        "1.00 ms",
        "500.0 us",
    ):
        assert part in text
    assert "Every cell" not in printed(tables.all_tables(report, every_cell=False))


def test_without_peers_tables_show_shares_of_the_peak():
    text = printed(tables.all_tables(Report(HERE, {}, {}, (row(None),)), every_cell=False))
    assert "share of the machine's peak, geometric means" in text
    assert "0.50" in text
    assert "The least ratios" not in text


def test_precisions_stand_together_where_they_are_the_same():
    same = [row(), row(precision="highest")]
    assert list(tables.together(same)) == ["default, highest"]
    assert list(tables.together([row(), row(precision="highest", seconds=2e-3)])) == ["default", "highest"]
    assert printed([tables.cells(same, "")]).count(TINY) == 1


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (1.234, "1.23"), (12.0, "12.00"), (0.0123, "0.01"), (0.0012, "0.001")]
)
def test_small_numbers_keep_a_digit(value, text):
    assert tables.number(value) == text


def test_the_readmes_table(report):
    slow = [row(ratio, direction=name) for ratio, name in ((0.5, "input_grad"), (2.0, "weight_grad"))]
    highest = row(9.0, precision="highest")
    *lines, _, place = load_script("peers/table.py").table(report.with_rows([*slow, highest])).splitlines()
    assert lines[0] == "| layers | forward, NCHW | forward, NHWC | gradients, NCHW | gradients, NHWC |"
    assert lines[2:] == ["| 1x1 | **2.00** | 0.50 | 1.00 | - |"]
    assert place == "P, 1 thread, float32; PyTorch 2.6."


def test_the_picture_has_a_panel_for_each_type_and_layout(report):
    rows = [row(dtype="float64"), row(3.0, kind="max pool", direction="backward", layout="NHWC")]
    figure = picture.draw(report.with_rows([replace(one, problem=f"{n}") for n, one in enumerate(rows)]))
    assert [axes.get_title() for axes in figure.axes] == [
        *("float32, NCHW", "float32, NHWC", "float64, NCHW", "float64, NHWC"),
    ]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["1x1", "max pool"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["forward", "backward"]
    assert "above 1: faster" in figure.axes[2].get_xlabel()
    assert "PyTorch 2.6" in figure.get_suptitle()


def test_a_picture_without_peers_shows_shares():
    figure = picture.draw(Report(HERE, {}, {}, (row(None),)))
    assert figure.axes[0].get_xlabel() == "share of the machine's peak"


# The command


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run `bench` on two small layers in an empty folder; return its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(run, "sample", lambda: LAYERS)
    monkeypatch.setattr(run, "find_peers", list)
    monkeypatch.setattr(machine, "TRIES", 1)
    monkeypatch.setattr(machine, "COPIED", 2**16)

    def started(*arguments: object) -> tuple[object, str, str]:
        fixed = ["convkernels", "bench", "--alternations", "1", "--threads", "1"]
        monkeypatch.setattr(sys, "argv", [*fixed, *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return started


def test_bench(command, tmp_path):
    code, out, err = command("--cells")
    assert (code, err) == (0, "")
    found = load(tmp_path / "convkernels-bench.json")
    # Three directions and two, in two layouts, at two precisions.
    assert len(found.rows) == 20
    assert found.rules["repeats"] == 1
    assert found.peaks.keys() >= {"GB/s 1t"}
    assert "share of the machine's peak" in out
    assert "There was nobody to compare with" in out
    assert TINY in out
    with Image.open(tmp_path / "convkernels-bench.png") as drawn:
        assert drawn.format == "PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["convkernels-bench.json", "convkernels-bench.png"]


def test_full_measures_every_type_and_batch(command, tmp_path):
    assert command("--full", "--kind", "1x1", "--direction", "forward", "--repeats", "2", "--layout", "NHWC")[0] == 0
    found = load(tmp_path / "convkernels-bench.json")
    assert {(one.dtype, one.batch) for one in found.rows} == {(d, n) for d in ("float32", "float64") for n in (1, 8)}
    assert {one.layout for one in found.rows} == {"NHWC"}
    assert found.rules["repeats"] == 2


def test_what_is_said_last_holds(command, tmp_path):
    assert command("--full", "--quick", "--kind", "1x1", "--direction", "forward")[0] == 0
    assert {(one.dtype, one.batch) for one in load(tmp_path / "convkernels-bench.json").rows} == {("float32", 1)}


def test_resuming_measures_only_what_is_missing(command, monkeypatch, tmp_path):
    assert command("--kind", "1x1", "--output", "first.json")[0] == 0
    measured = []
    original = run.measure
    monkeypatch.setattr(run, "measure", lambda cell, *rest: measured.append(str(cell)) or original(cell, *rest))
    assert command("--resume", "first.json", "--output", "second.json")[0] == 0
    assert [text.split()[0] for text in measured] == ["forward", "backward"]
    assert all("pool:" in text for text in measured)
    first, second = load(tmp_path / "first.json"), load(tmp_path / "second.json")
    assert second.rows[: len(first.rows)] == first.rows
    assert len(second.rows) == 20


def test_an_interruption_keeps_what_was_measured(command, monkeypatch, tmp_path):
    original, done = run.measure, []

    def interrupted(*arguments):
        if done:
            raise KeyboardInterrupt
        done.extend(original(*arguments))
        return done

    monkeypatch.setattr(run, "measure", interrupted)
    code, _, err = command()
    assert (code, err) == (130, "error: interrupted; go on with --resume convkernels-bench.json\n")
    assert list(load(tmp_path / "convkernels-bench.json").rows) == done


def test_a_wrong_result_ends_the_run_but_keeps_what_was_measured(command, monkeypatch, tmp_path):
    original, done = run.measure, []

    def failing(*arguments):
        if len(done) == 8:
            raise CommandError("Peer computes another result")
        rows = original(*arguments)
        done.extend(rows)
        return rows

    monkeypatch.setattr(run, "measure", failing)
    assert command() == (1, "", "error: Peer computes another result\n")
    assert list(load(tmp_path / "convkernels-bench.json").rows) == done


def test_showing_measures_nothing(command, monkeypatch, report, tmp_path):
    report.save(tmp_path / "a.json")
    Report(HERE, {}, {}, (replace(row(9.0, direction="weight_grad"), source="def"),)).save(tmp_path / "b.json")
    monkeypatch.setattr(run, "measure", None)
    code, out, _ = command("--show", "--resume", "a.json", "--resume", "b.json", "--output", "c.json")
    assert code == 0
    assert len(load(tmp_path / "c.json").rows) == 4
    assert "These are rows of 2 states of the source: abc, def" in out
    assert command("--show", "--output", "c.json")[0] == 0


def test_a_busy_machine_is_told_of(command, report, tmp_path):
    report.with_rows([row(processor_share=0.4), row(layout="NHWC", processor_share=0.99)]).save(tmp_path / "a.json")
    _, out, _ = command("--show", "--resume", "a.json")
    assert "The machine was busy with other work during 1 of 3 rows" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--kind", "3y3"], 2, "error: kinds: '3y3' must be one of '1x1', '3x3'"),
        (["--threads", "10000"], 2, "error: threads: 10000 must be from 1 to"),
        (["--resume", "absent.json"], 1, "error: cannot read absent.json: No such file or directory\n"),
        (["--show"], 1, "error: cannot read convkernels-bench.json: No such file or directory\n"),
        (["--kind", "3-D"], 2, "error: nothing to show: no cell was measured\n"),
        (["--output", "absent/report.json"], 1, "error: cannot write absent/report.json: No such file or directory\n"),
    ],
)
def test_what_cannot_be(command, arguments, code, message):
    found, _, err = command(*arguments)
    assert found == code
    assert err.startswith(message)


def test_rows_as_json_have_every_field():
    assert set(asdict(row())) == {
        *("problem", "direction", "layout", "threads", "precision", "kind", "dtype", "batch", "implementation"),
        *("seconds", "rate", "unit", "peak_share", "memory", "error", "peers", "peer", "ratio"),
        *("processor_share", "declined", "source"),
    }
