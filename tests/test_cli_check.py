"""`convkernels check`: every verdict, exit code and sentence, on files that may hang, crash or not load."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from homework import CS231N, DEEPLEARNING_AI, planted

pytest.importorskip("typer", reason="the command line needs the extra convkernels[cli]")

from convkernels.cli import check, main

HANGING = """
import numpy as np
def relu_forward(x):
    while True: pass
def relu_backward(dout, cache):
    return np.where(cache > 0, dout, 0)
"""
SLOW = """
import time
def relu_forward(x):
    time.sleep(0.3)
    return x * (x > 0), x
"""
RELU = """
import numpy as np
def relu_forward(x):
    return np.maximum(x, 0), x
"""
NOT_IMPORTED = "layers.py cannot be imported: "
NO_FUNCTION = "layers.py has no function of CS231n or deeplearning.ai or convkernels: it has "


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Write a file, check it in its folder, and return the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(source, *options: object, file="layers.py", name="") -> tuple[object, str, str]:
        if source is not None:
            (tmp_path / file).write_text(source)
        monkeypatch.setattr(sys, "argv", ["convkernels", "check", file + name, *map(str, options)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return run


def test_a_right_cs231n_file(command, tmp_path):
    code, out, err = command(CS231N, "--examples", 20)
    first, *lines = out.splitlines()
    assert (code, err, first) == (0, "", "layers.py: 33 functions of CS231n")
    verdicts = [line.split()[:2] for line in lines if line.startswith("  right")]
    assert len(verdicts) == 33
    assert ["right", "conv_backward_fast"] in verdicts
    assert "  right   softmax_loss                on 20 problems" in lines
    assert [file.name for file in tmp_path.iterdir()] == ["layers.py"]


def test_a_right_deeplearning_ai_file(command):
    code, out, err = command(DEEPLEARNING_AI, "--examples", 20)
    assert (code, err) == (0, "")
    assert out.startswith("layers.py: 8 functions of deeplearning.ai\n  right   zero_pad ")
    assert "\n                                   Z has type float64 for float32 arguments\n" in out


def test_a_wrong_function(command):
    code, out, err = command(planted(CS231N, ("flat // pw", "flat // ph")), name=":max_pool_backward_naive")
    assert (code, err) == (1, "")
    head, text = out.split("\n\n")
    assert head == "layers.py: 1 function of CS231n\n  wrong   max_pool_backward_naive  see below"
    said, hint, *_ = text.splitlines()
    assert said.startswith("max_pool_backward_naive is wrong: it raised IndexError: index 1 is out of bounds")
    assert said.endswith("(line 113: dx[n, c, i * stride + flat // ph, j * stride + flat % pw] += dout[n, c, i, j]).")
    assert hint.startswith("  hint: it is wrong only when the window is not square (")
    assert "    from layers import max_pool_backward_naive, max_pool_forward_naive\n" in text


def test_json(command):
    code, out, err = command(
        planted(CS231N, ("flat // pw", "flat // ph")) + "print('hello')\n", "--json", "--examples", 20
    )
    found = json.loads(out)
    assert (code, err) == (1, "")
    assert (found["file"], found["convention"], found["right"]) == ("layers.py", "cs231n", False)
    wrong = [report for report in found["functions"] if not report["right"]]
    assert [report["function"] for report in wrong] == ["max_pool_backward_naive", "conv_relu_pool_backward"]
    assert wrong[0]["finding"]["arguments"]["pool_param"] == {"pool_height": 1, "pool_width": 2, "stride": 1}


def test_json_of_what_cannot_run(command):
    code, out, err = command("def (:\n", "--json")
    assert (code, err) == (2, "")
    assert json.loads(out)["error"].startswith("layers.py is no Python: line 1: SyntaxError: ")


def test_an_endless_loop_and_what_depends_on_it(command):
    code, out, err = command(HANGING, "--timeout", 2)
    assert (code, err) == (1, "")
    sentence = "it did not end within 2 s (line 4: while True: pass), called with x of shape (1, 1)"
    assert f"relu_forward is wrong: {sentence}." in out
    assert "right   relu_backward  on 100 problems" in out


def test_what_needs_the_cache_of_an_endless_loop(command):
    source = planted(CS231N, ('    mode = bn_param["mode"]\n', "    while True:\n        pass\n"))
    batch_norm = source[source.index("def batchnorm_forward") : source.index("def batchnorm_backward_alt")]
    code, out, _ = command(f"import numpy as np\n{batch_norm}", "--timeout", 1.5)
    assert code == 1
    assert "  skipped batchnorm_backward  batchnorm_forward, whose cache it takes, did not end\n" in out


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("import os; os._exit(3)", "it ended the process, with exit code 3"),
        pytest.param(
            "import os; os.abort()",
            "it crashed with SIGABRT (line 2: import os; os.abort())",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="there are no signals"),
        ),
    ],
)
def test_a_crash(command, statement, words):
    source = f"def relu_forward(x):\n    {statement}\ndef svm_loss(x, y):\n    return 1, 2, 3\n"
    code, out, _ = command(source)
    assert code == 1
    assert f"relu_forward is wrong: {words}, called with x of shape (1, 1)." in out
    assert "svm_loss is wrong: it returns 3 values, but should return 2: loss, dx." in out


def test_slow_functions_are_tried_as_far_as_time_goes(command):
    code, out, _ = command(SLOW, "--timeout", 4)
    assert code == 0
    assert re.search(r"time was up after \d of 100 problems", out)


def test_a_backward_without_its_forward(command):
    code, out, _ = command("def layernorm_backward(dout, cache):\n    return 1\n")
    assert code == 2
    assert "  skipped layernorm_backward  layernorm_forward, whose cache it takes, is not in the file\n" in out


def test_names_of_two_conventions(command):
    both = CS231N[: CS231N.index("def conv_forward_naive")] + "def zero_pad(X, pad):\n    pass\n"
    code, out, _ = command(both, "--examples", 5)
    assert code == 0
    assert out.startswith(
        "layers.py: 4 functions of CS231n (1 of deeplearning.ai left out: --convention deeplearning_ai)\n"
    )
    code, out, _ = command(both, "--convention", "deeplearning_ai")
    assert code == 1
    assert "zero_pad is wrong: it returns None, but should return X_pad: is a `return` missing" in out


def test_our_own_signature(command):
    source = "import convkernels as ck\ndef conv1d(x, w, *, stride=1):\n    return ck.conv1d(x, w, stride=stride)\n"
    assert command(source, "--convention", "native", "--examples", 20)[0] == 0


def test_files_beside_it_are_found_and_do_not_stand_in_for_pythons_own(command, tmp_path):
    (tmp_path / "json.py").write_text("1 / 0\n")
    (tmp_path / "helpers.py").touch()
    assert command(f"from .helpers import *\nimport helpers{RELU}", "--examples", 5)[0] == 0


def test_what_the_file_does_to_streams_and_warnings_stays_its_own(command):
    greedy = "import sys, io, warnings, numpy as np\nsys.stdout = sys.stderr = io.StringIO()\n"
    strict = "np.seterr(all='raise')\nwarnings.simplefilter('error')\nprint('hello')\n"
    softmax = CS231N[CS231N.index("def softmax_loss") : CS231N.index("def svm_loss")]
    code, out, err = command(f"{greedy}{strict}{softmax}", "--examples", 20)
    assert (code, err) == (0, "")
    assert out == "layers.py: 1 function of CS231n\n  right   softmax_loss  on 20 problems\n"


def test_packages_are_found_by_their_name(command, tmp_path):
    (tmp_path / "cs231n").mkdir()
    for file in ("__init__.py", "helpers.py"):
        (tmp_path / "cs231n" / file).touch()
    source = f"from cs231n.helpers import *\nfrom .helpers import *{RELU}"
    assert command(source, "--examples", 5, file="cs231n/layers.py")[0] == 0


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def f():\n    x = (1,\n", "layers.py is no Python: line 2: SyntaxError: '(' was never closed: x = (1,"),
        ("def f():\n  x = 1\n    y\n", "layers.py is no Python: line 3: IndentationError: unexpected indent: y"),
        ("x = 1\0", "layers.py is no Python: "),
        ("from .fast import *\n", f"{NOT_IMPORTED}line 1: it imports .fast, but there is no fast.py beside it"),
        ("import not_there\n", f"{NOT_IMPORTED}line 1: it imports not_there, which is neither installed nor beside it"),
        ("get_ipython()\n", f"{NOT_IMPORTED}line 1: it calls get_ipython, which exists in notebooks only: take such"),
        ("x = 1\n1 / 0\n", f"{NOT_IMPORTED}line 2: it raised ZeroDivisionError: division by zero"),
        ("raise SystemExit(4)\n", f"{NOT_IMPORTED}line 1: it raised SystemExit: 4"),
        ("import os\nos._exit(4)\n", f"{NOT_IMPORTED}it ended the process, with exit code 4"),
        ("while True:\n    pass\n", f"{NOT_IMPORTED}it did not end within 1 s (line"),
        ("", f"{NO_FUNCTION}none"),
        ("def conv_foward_naive():\n    1\n", f"{NO_FUNCTION}conv_foward_naive (is conv_forward_naive meant?)"),
    ],
)
def test_files_that_cannot_be_checked(command, source, words):
    code, out, err = command(source, "--timeout", 1)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {words}")
    assert err.count("\n") == 1


def test_a_file_beside_it_that_is_wrong(command, tmp_path):
    (tmp_path / "fast.py").write_text("x = (\n")
    _, _, err = command("from .fast import *\n")
    assert err == f"error: {NOT_IMPORTED}fast.py, line 1: SyntaxError: '(' was never closed\n"


@pytest.mark.parametrize(
    ("file", "options", "words"),
    [
        ("layers.py:relu_foward", [], "layers.py has no function relu_foward (is relu_forward meant?): it has"),
        ("layers.py:helper", [], "helper is no function of CS231n or deeplearning.ai or convkernels"),
        ("layers.py:relu_forward", ["--convention", "native"], "relu_forward is no function of convkernels"),
        ("layers.py", ["--convention", "x"], "--convention x must be one of auto, cs231n, deeplearning_ai, native"),
        ("other.py", [], "cannot read other.py: No such file or directory"),
        (".", [], "cannot read .: "),
        ("week1.ipynb", [], "week1.ipynb is a notebook: save it as a Python script first, and check that"),
    ],
)
def test_arguments_that_name_nothing(command, tmp_path, file, options, words):
    (tmp_path / "layers.py").write_text("def relu_forward(x):\n    pass\ndef helper():\n    pass\n")
    code, out, err = command(None, *options, file=file)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {words}")


@pytest.mark.parametrize("option", [("--examples", 0), ("--timeout", 0), ("--timeout", "nan"), ("--seed", -1)])
def test_numbers_out_of_range(command, option):
    code, _, err = command("", *option)
    assert code == 2
    assert f"Invalid value for '{option[0]}'" in err


def test_an_interrupt(command, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(check.Worker, "check", interrupted)
    assert command(RELU) == (130, "", "error: interrupted\n")


def test_without_hypothesis(tmp_path):
    code = (
        "import sys; sys.modules['hypothesis'] = None; sys.argv = ['convkernels', 'check', 'layers.py']\n"
        "from convkernels.cli import main; main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr == 'error: checking needs its extra: pip install "convkernels[testing]"\n'
