"""The command line: its pictures and tables, and one sentence for whatever goes wrong."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line needs the extra convkernels[cli]")
pytest.importorskip("matplotlib", reason="the command line needs the extra convkernels[cli]")
pytest.importorskip("sklearn", reason="the command line needs the extra convkernels[cli]")

from PIL import Image

import convkernels as ck
from convkernels.cli import comparison, demo, info, main, pictures
from convkernels.cli.filters import as_pixels, filtered
from convkernels.operation import CONV, CONV_WEIGHT_GRAD, OPERATIONS, POOL

PROBLEM = "n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1"


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command line in this process; return its exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["convkernels", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def image(tmp_path):
    file = tmp_path / "tiny.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)).save(file)
    return file


@pytest.fixture
def no_comparison(monkeypatch):
    """Leave out what is slow in the demonstration."""
    monkeypatch.setattr(demo, "compare_strategies", lambda batch: [])
    monkeypatch.setattr(demo, "train_on_digits", lambda console, output, epochs: None)


@pytest.mark.parametrize("layout", demo.LAYOUTS)
def test_greyscale_and_edges_by_hand(layout):
    photo = np.empty((3, 3, 3), np.uint8)
    photo[..., 0], photo[..., 1] = 10, 20
    photo[..., 2] = np.arange(1, 10).reshape(3, 3)
    results = filtered(photo, layout)
    np.testing.assert_allclose(results["greyscale"], [[15.1, 15.2, 15.3], [15.4, 15.5, 15.6], [15.7, 15.8, 15.9]])
    np.testing.assert_array_equal(results["horizontal edges"], [[115, 108, 111], [110, 104, 110], [141, 148, 145]])


@pytest.mark.parametrize("layout", demo.LAYOUTS)
def test_each_channel_is_filtered_by_itself(layout):
    photo = np.zeros((5, 5, 3), np.uint8)
    photo[2, 2] = 50, 100, 0
    results = filtered(photo, layout)
    np.testing.assert_allclose(results["blur"], np.broadcast_to([2, 4, 0], (5, 5, 3)), rtol=1e-12)
    np.testing.assert_array_equal(results["sharpen"][2, :, 0], [0, -50, 250, -50, 0])
    np.testing.assert_array_equal(results["outline"][1, :, 1], [0, -100, -100, -100, 0])
    assert results["outline"][2, 2].tolist() == [400, 800, 0]


def test_pixels_are_clipped_and_rounded():
    assert as_pixels(np.array([-3.0, 1.6, 300.0])).tolist() == [0, 2, 255]


def test_demo(command, image, tmp_path):
    output = tmp_path / "out.png"
    code, out, err = command("demo", "--quick", "--image", image, "--output", output)
    assert (code, err.strip()) == (0, "")
    with Image.open(output) as picture:
        picture.verify()
        assert picture.format == "PNG"
        assert picture.width > 2000
        assert picture.height > 400
    assert "tiny, 20x12: filtered in NCHW and NHWC, largest difference" in out
    assert str(output) in out
    table = out[out.index("Operation") :]
    for group in ("conv forward", "conv backward", "pool forward", "pool backward"):
        assert group in table
    for strategy in (*CONV.names(), *POOL.names()):
        assert f" {strategy} " in table
    assert "…" not in out
    assert "epoch 3/3: training loss" in out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out-training", "out.png", "tiny.png"]
    assert len(list((tmp_path / "out-training").iterdir())) == 3


def test_sample_photos(command, no_comparison, tmp_path):
    output = tmp_path / "out.png"
    code, out, _ = command("demo", "--output", output)
    assert code == 0
    assert "china, 640x427" in out
    assert "flower, 640x427" in out
    assert output.stat().st_size > 100_000


@pytest.mark.parametrize(("options", "epochs"), [((), None), (("--quick",), 3)])
def test_the_network_trains_for_its_own_epochs_or_quickly(command, image, no_comparison, monkeypatch, options, epochs):
    asked = []
    monkeypatch.setattr(demo, "train_on_digits", lambda console, output, epochs: asked.append(epochs))
    code, *_ = command("demo", *options, "--image", image, "--output", image.with_name("out.png"))
    assert (code, asked) == (0, [epochs])


def test_figure_names_rows_and_columns():
    photo = pictures.Photo("$x$", np.full((4, 4, 3), 7, np.uint8))
    figure = pictures.draw([(photo, layout, filtered(photo.pixels, layout)) for layout in demo.LAYOUTS], "by me")
    assert [axes.get_title() for axes in figure.axes[:6]] == [
        *("original", "greyscale", "horizontal edges"),
        *("blur", "sharpen", "outline"),
    ]
    assert [axes.get_ylabel() for axes in figure.axes[::6]] == ["$x$\nNCHW", "$x$\nNHWC"]
    assert figure.get_supxlabel() == "by me"


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_mode_is_read_as_rgb(mode, tmp_path):
    file = tmp_path / "picture.tiff"
    Image.new(mode, (5, 3)).save(file)
    photo = pictures.read_photo(file)
    assert photo.pixels.shape == (3, 5, 3)
    assert (photo.name, photo.scaled_from) == ("picture", None)


def test_transparent_pictures_lie_on_white(tmp_path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (pictures.read_photo(tmp_path / "clear.png").pixels == 255).all()


def test_sixteen_bits_are_scaled(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert pictures.read_photo(tmp_path / "deep.png").pixels[0, :, 0].tolist() == [0, 100, 255]


def test_large_pictures_are_scaled_down(command, no_comparison, tmp_path):
    Image.new("L", (2048, 600)).save(tmp_path / "large.png")
    code, out, _ = command("demo", "--image", tmp_path / "large.png", "--output", tmp_path / "out.png")
    assert code == 0
    assert "large, 1024x300, scaled down from 2048x600:" in out


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), (b"text", "cannot identify image file")])
def test_unreadable_image(command, tmp_path, content, reason):
    file = tmp_path / "picture.png"
    if content:
        file.write_bytes(content)
    code, _, err = command("demo", "--image", file, "--output", tmp_path / "out.png")
    assert code == 1
    assert err.startswith(f"error: cannot read image {file}: {reason}")
    assert err.count("\n") == 1


def test_truncated_image(command, image):
    image.write_bytes(image.read_bytes()[:200])
    code, _, err = command("demo", "--image", image)
    assert code == 1
    assert err.startswith("error: cannot read image")


@pytest.mark.parametrize(
    ("output", "reason"), [("missing/out.png", "No such file"), ("", "it is a directory"), ("a" * 300, "File name too")]
)
def test_unwritable_output(command, image, tmp_path, output, reason):
    code, _, err = command("demo", "--image", image, "--output", tmp_path / output)
    assert code == 1
    assert err.startswith(f"error: cannot write {tmp_path / output}: {reason}")
    assert err.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_special_files_are_not_replaced(command, image, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    code, _, err = command("demo", "--image", image, "--output", tmp_path / "pipe")
    assert (code, err) == (1, f"error: cannot write {tmp_path / 'pipe'}: it is no regular file\n")


def test_interrupted_picture_leaves_the_old_one(command, image, monkeypatch, tmp_path):
    output = tmp_path / "out.png"
    output.write_text("old")

    def interrupted(figure, file, **options):
        file.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures.Figure, "savefig", interrupted)
    code, _, err = command("demo", "--image", image, "--output", output)
    assert (code, err) == (130, "error: interrupted\n")
    assert output.read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.png", "tiny.png"]


def test_too_many_pictures(command):
    code, _, err = command("demo", *["--image", "cat.jpg"] * 17)
    assert code == 2
    assert "at most 16 pictures" in err


def test_definition_in_slices_is_the_whole():
    done = []
    case = comparison.pooling(comparison.SLICE + 2, "NHWC")
    sliced, whole = case.run_definition(done.append), case.run("im2col")
    assert done == [comparison.SLICE, 2]
    for direction in ("forward", "backward"):
        for found, expected in zip(sliced[direction].results, whole[direction].results, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_weight_gradient_is_summed_over_slices():
    rows = list(comparison.compare(comparison.convolution(comparison.SLICE + 1, "NHWC"), lambda done: None))
    assert [row.difference < 1e-10 for row in rows] == [True] * (len(CONV.names()) + len(CONV_WEIGHT_GRAD.names()))
    assert all((row.seconds > 0) is not bool(row.declined) for row in rows)


def test_strategies_come_from_the_registry(command, image, no_comparison, monkeypatch, tmp_path):
    # Only pooling, on one image: what is looked at are the rows.
    monkeypatch.setattr(demo, "compare_strategies", lambda batch: list(comparison.compare(case, lambda done: None)))
    case = comparison.pooling(1, "NCHW")

    run = OPERATIONS["pool"].find("im2col").run  # the definition would take a minute
    ck.register("pool", "forward_only", run)
    ck.register("pool", "unwilling", run, supports=lambda spec: "not today")
    try:
        code, out, _ = command("demo", "--image", image, "--output", tmp_path / "out.png")
    finally:
        ck.unregister("pool", "forward_only")
        ck.unregister("pool", "unwilling")
    assert code == 0
    assert out.count(" forward_only ") == 1
    assert "unwilling declines pool forward in NCHW: " in out
    assert "not today" in out


def test_info(command):
    code, out, err = command("info")
    assert (code, err) == (0, "")
    unwrapped = " ".join(out.split())
    for name, operation in OPERATIONS.items():
        assert f"{name} {', '.join(operation.names())}" in unwrapped
    for word in (ck.__version__, np.__version__, sys.version.split()[0], "scikit-learn", "max_workspace", "loaded"):
        assert word in out
    assert "\x1b" not in out


def test_info_cuts_nothing(command, monkeypatch):
    reason = "ImportError: " + "/a/long/path" * 20 + " [bold] :x:"
    monkeypatch.setattr(info, "load_plugins", lambda: {"mine (package:function)": reason})
    monkeypatch.setattr(info, "version", lambda package: (_ for _ in ()).throw(info.PackageNotFoundError(package)))
    code, out, _ = command("info")
    assert code == 0
    assert "".join(reason.split()) in "".join(out.split())
    assert "not installed" in out
    assert "…" not in out


def test_explain(command):
    code, out, err = command("explain", PROBLEM, "--layout", "NHWC", "--strategy", "stride_tricks")
    assert (code, err) == (0, "")
    assert out == f"{ck.explain(PROBLEM, layout='NHWC', strategy='stride_tricks')}\n"


@pytest.mark.parametrize(
    ("text", "size"), [("100", 100), ("100B", 100), ("2KiB", 2048), ("1 kb", 1000), ("64MiB", 2**26), ("1GB", 10**9)]
)
def test_explain_takes_sizes_with_units(command, text, size):
    code, out, _ = command("explain", PROBLEM, "--max-workspace", text, "--precision", "highest")
    assert code == 0
    assert out == f"{ck.explain(PROBLEM, max_workspace=size, precision='highest')}\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nonsense"], "error: problem 'nonsense' is not of the form"),
        (["conv2d"], "error: problem 'conv2d' is not of the form"),
        ([PROBLEM, "--layout", "NHCC"], "error: layout='NHCC' must name each axis once"),
        ([PROBLEM, "--strategy", "im2cow"], "error: strategy='im2cow' is not one of conv's"),
        ([PROBLEM, "--precision", "high"], "error: precision='high' must be one of"),
        ([PROBLEM, "--max-workspace", "2 fish"], "Error: Invalid value for '--max-workspace': '2 fish' is no number"),
        ([], "Error: Missing argument"),
    ],
)
def test_explain_refuses(command, arguments, reason):
    code, out, err = command("explain", *arguments)
    assert (code, out) == (2, "")
    assert reason in err


def test_version_and_help(command):
    assert command("--version") == (0, f"convkernels {ck.__version__}\n", "")
    code, out, _ = command("--help")
    assert code == 0
    for name in ("demo", "info", "explain"):
        assert f"\n  {name} " in out
        code, text, _ = command(name, "--help")
        assert code == 0
        assert f"Examples:\n    convkernels {name}" in text
    assert command("bogus")[0] == 2


@pytest.mark.parametrize(("module", "arguments"), [("typer", ["--version"]), ("sklearn", ["demo"])])
def test_missing_extra(module, arguments):
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv = {['convkernels', *arguments]!r}\n"
        "from convkernels.cli import main; main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    sentence = f'the command line needs its extra: pip install "convkernels[cli]" (there is no module {module!r})'
    assert run.stderr == f"error: {sentence}\n"


def test_closed_pipe():
    code = "import sys; sys.argv = ['convkernels', 'info']; from convkernels.cli import main; main()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        run.stdout.close()
        assert run.stderr.read() == b""


def test_warmup_compiles_or_says_what_is_missing(command, monkeypatch):
    if importlib.util.find_spec("numba"):
        code, out, err = command("warmup")
        assert (code, err) == (0, "")
        assert "modules are compiled and kept" in out
    monkeypatch.setattr("convkernels.cli.warmup.missing", lambda: "Numba is not installed: pip install it")
    code, out, err = command("warmup")
    assert (code, out) == (1, "")
    assert "Numba is not installed: pip install it" in err
