"""The commands and their options; what they do stands in the modules beside this one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from convkernels import __version__
from convkernels.errors import one_of
from convkernels.planning import explain as explain_call
from convkernels.problem import parse_problem

from .errors import CommandError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its panels would break the examples, and a usage error is one line without them
    context_settings={"help_option_names": ["-h", "--help"]},
)

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
MOST_PICTURES = 16


def parse_bytes(text: str) -> int:
    """Read a number of bytes with or without a unit.

    Examples
    --------
    >>> parse_bytes("64MiB"), parse_bytes("1 GB")
    (67108864, 1000000000)
    """
    match = re.fullmatch(r"(\d+) ?([a-z]*)", text, re.IGNORECASE)
    unit = match and UNITS.get(match[2].upper())
    if not match or not unit:
        raise typer.BadParameter(f"{text!r} is no number of bytes, such as 4096, 64MiB or 1GB")
    return int(match[1]) * unit


def _console() -> Console:
    # Problem strings and paths hold colons and brackets, which are neither emoji nor markup.
    return Console(markup=False, emoji=False, highlight=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"convkernels {__version__}")
        raise typer.Exit


def _verbatim(*lines: str) -> str:
    return "\n".join(["\b", *lines])  # \b keeps the line breaks of a help text's paragraph


def _examples(*commands: str) -> str:
    return _verbatim("Examples:", *(f"  convkernels {command}" for command in commands))


GRAMMAR = _verbatim(
    "A problem is a spec as text: conv:n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1",
    "  operation   conv, which may be left out, conv_input_grad, conv_weight_grad,",
    "              pool, pool_grad",
    "  n g i o     batch, groups, input and output channels; a pool has n and c",
    "  in k s p d  for each axis: input, kernel size, stride, padding, dilation",
    "  options     bias; or a pool's max, mean, sum, min or lp2, then ceil, nopad",
    "  dtype       where it is not float32",
)


@app.callback(epilog=_examples("demo", "info", "explain n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1"))
def convkernels(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Convolution, pooling and normalisation for NumPy arrays, forward and backward, in any axis layout."""


@app.command(
    epilog=_examples(
        "demo",
        "demo --quick",
        "demo --image cat.jpg --image dog.png --output pets.png",
    )
)
def demo(
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A picture to filter, repeatable; two sample photos if not given."),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="PNG", help="Where the filtered pictures go.")] = Path(
        "convkernels-demo.png"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Compare on 10 images, not 100; train for 3 epochs.")] = False,
) -> None:
    """Filter photos, and compare all strategies in time and result.

    The photos are turned to greyscale, horizontal edges, blur, sharpen and outline, in NCHW and in NHWC, and drawn
    into one picture. Then every strategy of convolution and max pooling runs forward and backward, against the
    definition in plain Python loops. At last a network is trained on handwritten digits.
    """
    if len(image or []) > MOST_PICTURES:
        raise typer.BadParameter(f"at most {MOST_PICTURES} pictures fit", param_hint="--image")
    try:
        from .demo import FULL, run  # noqa: PLC0415  # draws in Matplotlib and scikit-learn, which are slow to load

        run(_console(), image or [], output, 10 if quick else FULL)
    except KeyboardInterrupt:
        raise CommandError("interrupted", 130) from None


DATA = ("digits", "mnist", "cifar10")
NETS = ("mnist", "mnist-bn", "three-layer", "lenet5", "resnet")


@app.command(
    epilog=_examples(
        "train",
        "train --net resnet --epochs 5 --layout NCHW",
        "train mnist --data ~/mnist",
        "train cifar10 --data ~/cifar-10-batches-bin --resume",
    )
)
def train(
    data: Annotated[str, typer.Argument(metavar="[digits|mnist|cifar10]", help="The pictures.")] = "digits",
    path: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Your own MNIST (IDX, also .gz) or CIFAR-10 (binary version)."),
    ] = None,
    net: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"{', '.join(NETS)}; by default what the data is trained with.")
    ] = None,
    layout: Annotated[str, typer.Option(metavar="AXES", help="Those of a batch, such as NCHW.")] = "NHWC",
    epochs: Annotated[int | None, typer.Option(metavar="N", min=1, help="Times through the pictures.")] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", min=1, help="Pictures of a step.")] = None,
    lr: Annotated[float | None, typer.Option(metavar="RATE", min=0, help="The learning rate of Adam.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of weights, dropout and shuffling.")] = 0,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where weights and pictures go.")] = Path(
        "convkernels-train"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --output.")] = False,
) -> None:
    """Train a network on handwritten digits, MNIST or CIFAR-10.

    Prints the network with its counts, its accuracy untrained, a line for each epoch, and the confusion matrix, and
    writes weights.npz, curves.png and predictions.png. Ctrl-C leaves a checkpoint, from which --resume goes on exactly
    as if nothing had happened. The digits come with scikit-learn; nothing is downloaded.
    """
    for name, given, known in (("data", data, DATA), ("--net", net, NETS)):
        if given is not None and given not in known:
            raise typer.BadParameter(f"{given!r} is not one of {one_of(known, given)}", param_hint=name)
    from .train import Options, run  # noqa: PLC0415  # draws in Matplotlib, which is slow to load

    run(_console(), Options(data, path, net, layout, epochs, batch_size, lr, seed, output, resume))


@app.command(epilog=_examples("warmup"))
def warmup() -> None:
    """Compile what Numba compiles, so that no later process has to wait for it.

    It is kept beside the package, or in Numba's cache directory (NUMBA_CACHE_DIR).
    """
    from .warmup import run  # noqa: PLC0415  # draws progress, which other commands do without

    run(_console())


@app.command(epilog=_examples("info", "info > report.txt"))
def info() -> None:
    """Show versions, strategies, BLAS and settings, for a bug report."""
    from .info import show  # noqa: PLC0415  # needs threadpoolctl, which no other command does

    show(_console())


@app.command(
    epilog=GRAMMAR
    + "\n\n"
    + _examples(
        "explain n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1",
        "explain n8g1i3o16_in32x32_k5x5_s2x2_p2+2x2+2_d1x1_bias_float64 --layout NHWC",
        "explain pool:n1c64_in56x56_k2x2_s2x2_p0+0x0+0_d1x1_max --max-workspace 1MiB",
    )
)
def explain(
    problem: Annotated[str, typer.Argument(metavar="PROBLEM", help="A problem string.")],
    layout: Annotated[str | None, typer.Option(metavar="AXES", help="Those of the data, such as NHWC.")] = None,
    strategy: Annotated[str, typer.Option(metavar="NAME", help="The implementation to ask for.")] = "auto",
    precision: Annotated[
        str | None, typer.Option(metavar="default|highest", help="Which implementations auto may take.")
    ] = None,
    max_workspace: Annotated[
        int | None,
        typer.Option(parser=parse_bytes, metavar="BYTES", help="Scratch memory, such as 4096, 64MiB or 1GB."),
    ] = None,
) -> None:
    """Say what would run a problem, and why the others would not."""
    # Unlike the library's call, which also takes the name of a function and then wants its arrays.
    parse_problem(problem)
    explanation = explain_call(
        problem, layout=layout, strategy=strategy, precision=precision, max_workspace=max_workspace
    )
    typer.echo(explanation)


@app.command(
    epilog=_examples(
        "check layers.py",
        "check layers.py:conv_backward_naive --examples 1000",
        "check week1.py --json > report.json",
    )
)
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file of functions; FILE:NAME is one function in it.")],
    convention: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Whose functions: cs231n, deeplearning_ai, native (this package's own), or auto, by the names.",
        ),
    ] = "auto",
    examples: Annotated[int, typer.Option(metavar="N", min=1, help="Problems to try for each function.")] = 100,
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Which problems.")] = 0,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=1, max=86400, help="For loading the file, and for each function."),
    ] = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON and nothing else.")] = False,
) -> None:
    """Find out whether functions are right, and if not, on what small input they are wrong.

    The file is imported, so its code runs. Its functions are known by the names that the courses CS231n and
    deeplearning.ai give them, or this package. Returns 0 if all are right, 1 if one is wrong, and 2 if something could
    not be checked.
    """
    if timeout != timeout:
        raise typer.BadParameter("nan is no number of seconds", param_hint="'--timeout'")
    from .check import Options, run  # noqa: PLC0415  # needs Hypothesis, which no other command does

    raise typer.Exit(run(_console(), file, Options(convention, examples, seed, timeout), as_json))


@app.command(
    epilog=_examples(
        "bench",
        "bench --kind 3x3 --kind depthwise --dtype float32 --threads 1",
        "bench --full",
        "bench --full --resume convkernels-bench.json",
        "bench --show --resume monday.json --resume tuesday.json --output both.json",
    )
)
def bench(
    full: Annotated[
        bool,
        typer.Option(
            "--full/--quick",
            help="Every layer, type, batch and precision (for hours), or two layers of each kind (for minutes).",
        ),
    ] = False,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND", help="A kind of layer, such as 3x3 or 'max pool', repeatable; a wrong one lists them all."
        ),
    ] = None,
    direction: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="forward, planned, input_grad, weight_grad or backward, repeatable."),
    ] = None,
    dtype: Annotated[list[str] | None, typer.Option(metavar="NAME", help="float32 or float64, repeatable.")] = None,
    layout: Annotated[
        list[str] | None, typer.Option(metavar="AXES", help="NCHW or NHWC, whatever the rank, repeatable.")
    ] = None,
    precision: Annotated[list[str] | None, typer.Option(metavar="NAME", help="default or highest, repeatable.")] = None,
    batch: Annotated[list[int] | None, typer.Option(metavar="N", min=1, help="Images, repeatable.")] = None,
    threads: Annotated[
        list[int] | None, typer.Option(metavar="N", min=1, help="Threads, everybody's alike, repeatable.")
    ] = None,
    alternations: Annotated[int, typer.Option(metavar="N", min=1, help="Turns of which medians are taken.")] = 9,
    repeats: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="How often that is done; 3 for --full, 1 for --quick.")
    ] = None,
    output: Annotated[Path, typer.Option(metavar="JSON", help="Where the report goes.")] = Path(
        "convkernels-bench.json"
    ),
    picture: Annotated[Path, typer.Option(metavar="PNG", help="Where the picture goes.")] = Path(
        "convkernels-bench.png"
    ),
    resume: Annotated[
        list[Path] | None,
        typer.Option(metavar="JSON", help="A report whose cells are taken over, not measured again; repeatable."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Measure nothing; show the reports to resume.")] = False,
    cells: Annotated[bool, typer.Option("--cells", help="Print a line for every cell, too.")] = False,
) -> None:
    """Compare the library's speed with PyTorch's and ONNX Runtime's, where these are installed.

    Layers of well-known networks run forward and backward, everyone in turn, with equal threads, each with data that
    lie as it likes them. The report can be shared, merged with others of the same machine, and shown again.
    """
    from .bench import run  # noqa: PLC0415  # loads all that the comparison needs
    from .bench.cells import Selection  # noqa: PLC0415  # as above
    from .bench.timing import Rules  # noqa: PLC0415  # as above

    chosen = {"kinds": kind, "directions": direction, "dtypes": dtype, "layouts": layout}
    request = run.Request(
        Selection.of(full, **chosen, precisions=precision, batches=batch, threads=threads),
        Rules(alternations, repeats or (3 if full else 1)),
        *(output, picture, tuple(resume or ()), show, cells),
    )
    run.run(_console(), request)
