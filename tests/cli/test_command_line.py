"""The command line as a whole: one style, one way to fail, completion, terminals, signals."""

import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import pytest

from fpgpu.cli.main import main
from fpgpu.cli.parser import COMMANDS, build_parser
from tests.cli.conftest import Run

FPGPU = [sys.executable, "-m", "fpgpu"]


def examples() -> Iterator[tuple[str, str]]:
    """Each example of each command, without the remark behind it."""
    for name, parser in build_parser().commands.items():
        for line in str(parser.epilog).splitlines()[1:]:
            yield name, re.split(r"\s{2,}", line.strip())[0]


class TestHelp:
    @pytest.mark.parametrize(("name", "line"), list(examples()))
    def test_examples_are_command_lines(self, name: str, line: str) -> None:
        words = shlex.split(line.partition(" > ")[0])
        words = words[words.index("fpgpu") + 1 :]
        assert build_parser().parse_args(words).command == name

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_has_help_with_examples_and_the_same_options(
        self, fpgpu_command: Run, name: str
    ) -> None:
        told = fpgpu_command(name, "--help")
        assert (told.code, told.err) == (0, "")
        assert f"  fpgpu {name}" in told.out.partition("examples:\n")[2]
        for option in ("-v, --verbose", "-q, --quiet", "--debug"):
            assert option in told.out
        assert max(map(len, told.out.splitlines())) <= 100

    def test_it_is_there_without_docstrings_and_without_importing_commands(self) -> None:
        code = """
            import sys
            from fpgpu.cli.parser import build_parser
            assert "--out" in build_parser().commands["ingest"].options
            assert "fpgpu.cli.ingest" not in sys.modules
        """
        words = [sys.executable, "-OO", "-c", textwrap.dedent(code) + "sys.exit(3)"]
        assert subprocess.run(words, check=False).returncode == 3

    def test_help_tells_the_exit_codes_and_every_command(self, fpgpu_command: Run) -> None:
        told = fpgpu_command("--help")
        assert [int(n) for n in re.findall(r"^  (\d+) ", told.out, re.MULTILINE)] == [0, 1, 2, 130]
        assert all(name in told.out for name in COMMANDS)

    @pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"demo", "ds9", "completion", "views"}))
    def test_what_a_script_would_read_comes_as_json(self, name: str) -> None:
        assert "--json" in build_parser().commands[name].options


def test_the_bare_word_prints_help(fpgpu_command: Run) -> None:
    done = fpgpu_command()
    assert (done.code, done.err) == (0, "")
    assert done.out == fpgpu_command("--help").out


@pytest.mark.parametrize("text", ["-27.79", "-2.2e-05", "-2E-5", "-.5", "-3", "-1.", "2.2"])
def test_numbers_below_zero_are_no_options(text: str) -> None:
    words = ["patch", "s", "--ra", text, "--dec", text, "--radius", "3"]
    assert build_parser().parse_args(words).dec == text


class TestMistakes:
    @pytest.mark.parametrize(
        ("words", "meant"),
        [
            ("ingets", "fpgpu: argument COMMAND: invalid choice: 'ingets'.*did you mean ingest?"),
            ("patch s --ra 1 --dec 1 --radus 3", "--radus; did you mean --radius"),
            ("info s --jsno", "--jsno; did you mean --json?"),
            ("ingest a --out s --wcs gwsc", "did you mean gwcs?"),
            ("plot s survy", "did you mean survey?"),
            ("info s --zzz", "unrecognized option: --zzz\n"),
            ("info", "arguments are required: DIR"),
            ("info s --js", "--js; did you mean --json?"),
        ],
    )
    def test_the_nearest_is_named(self, fpgpu_command: Run, words: str, meant: str) -> None:
        wrong = fpgpu_command(*words.split())
        assert (wrong.code, wrong.out) == (2, "")
        assert re.search(re.escape(meant).replace(r"\.\*", ".*"), wrong.err), wrong.err
        assert wrong.err.endswith(" --help\n")

    @pytest.mark.parametrize(
        "error", [PermissionError(13, "Permission denied", "stores"), MemoryError()]
    )
    def test_what_the_system_refuses_is_a_line_too(
        self, fpgpu_command: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def fail(folder: Path) -> None:
            raise error

        monkeypatch.setattr("fpgpu.cli.info.summarize", fail)
        told = fpgpu_command("info", "stores")
        assert told.code == 2
        assert told.err in (
            "fpgpu info: [Errno 13] Permission denied: 'stores'\n",
            "fpgpu info: there is not enough memory\n",
        )
        more = fpgpu_command("info", "stores", "--debug")
        assert more.code == 2
        assert more.err.startswith("Traceback")
        assert more.err.endswith(told.err)

    def test_a_full_disk_behind_standard_output_is_told(self, tiny_stores: Path) -> None:
        with Path("/dev/full").open("w") as full:
            for done in info_buffered_and_not(tiny_stores, full):
                assert done.returncode == 2
                assert re.fullmatch(r"fpgpu info: .*No space left on device\n", done.stderr)

    def test_a_pipe_that_is_closed_early_is_no_mistake(self, tiny_stores: Path) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as closed:
            for done in info_buffered_and_not(tiny_stores, closed):
                assert (done.returncode, done.stderr) == (0, "")


def info_buffered_and_not(
    stores: Path, output: TextIO
) -> Iterator[subprocess.CompletedProcess[str]]:
    """Print into a file, at once and, as is usual, at the end."""
    for unbuffered in ("", "1"):
        yield subprocess.run(
            [*FPGPU, "info", stores],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_any_command_with_a_line(
    fpgpu_command: Run, monkeypatch: pytest.MonkeyPatch, name: str, sent: signal.Signals
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    line = next(line for command, line in examples() if command == name)
    words = shlex.split(line.partition(" > ")[0])[1:]

    def interrupted(args: object) -> int:
        os.kill(os.getpid(), sent)
        time.sleep(10)
        return 0

    monkeypatch.setattr(f"fpgpu.cli.{name}.run", interrupted)
    done = fpgpu_command(*words)
    assert done.code == 130
    assert done.err == f"fpgpu {name}: interrupted\n"
    assert signal.getsignal(signal.SIGTERM) is before


class TestTerminal:
    """With a pseudo-terminal as standard error."""

    def start(self, *words: object, program: Sequence[str] = FPGPU) -> tuple[Any, int]:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        process = subprocess.Popen(
            [*program, *map(str, words)],
            stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        return process, ours

    def read(self, terminal: int, until: bytes = b"\0", seconds: float = 120.0) -> bytes:
        """What it shows until some text, or the end, when it is closed."""
        shown, end = b"", time.monotonic() + seconds
        while until not in shown and time.monotonic() < end:
            if select.select([terminal], [], [], 0.2)[0]:
                try:
                    shown += os.read(terminal, 4096)
                except OSError:  # the other end is closed
                    os.close(terminal)
                    break
        return shown

    def test_progress_is_one_line_drawn_over(
        self, tiny_exposures: list[Path], tmp_path: Path
    ) -> None:
        process, terminal = self.start("ingest", *tiny_exposures, "--out", tmp_path / "s")
        shown = self.read(terminal)
        assert process.wait(60) == 0
        assert shown.count(b"\r") >= 6
        assert b" 6/6 [" in shown
        # One line feed: after the last drawing.
        assert shown.count(b"\n") == 1
        assert shown.endswith(b"\n")

    def test_an_interrupt_leaves_a_clean_line_and_whole_stores(
        self, tiny_exposures: list[Path], tmp_path: Path
    ) -> None:
        many = []
        for number in range(20):
            for path in tiny_exposures:
                many.append(Path(shutil.copy(path, tmp_path / f"{number}_{path.name}")))
        out = tmp_path / "s"
        process, terminal = self.start("ingest", *many, "--out", out, "--executor", "serial")
        shown = self.read(terminal, until=b" 1/120")
        process.send_signal(signal.SIGINT)
        shown += self.read(terminal)
        assert process.wait(60) == 130
        lines = shown.decode().splitlines()
        assert lines[-1] == "fpgpu ingest: interrupted"
        assert "Traceback" not in shown.decode()
        if (out / "pixels.h5").exists():
            assert main(["verify", str(out), "--json"]) == 0

    def test_python_draws_a_bar_too_unless_told_not_to(
        self, tiny_exposures: list[Path], tmp_path: Path
    ) -> None:
        for progress, expected in ((None, b" 6/6 ["), (False, b"")):
            call = f"ingest({list(map(str, tiny_exposures))}, {str(tmp_path / 's')!r}, "
            call += f"progress={progress}, executor='serial')"
            code = f"from fpgpu.ingest.pipeline import ingest; {call}"
            process, terminal = self.start(code, program=(sys.executable, "-c"))
            shown = self.read(terminal)
            assert process.wait(60) == 0
            assert expected in shown if expected else shown == b""


class TestCompletion:
    @pytest.mark.parametrize(
        ("line", "offered"),
        [
            ("fpgpu in", {"ingest", "info"}),
            ("fpgpu info --js", {"--json"}),
            ("fpgpu ingest a.fits --wcs ", {"auto", "gwcs", "fits"}),
            ("fpgpu completion ", {"bash", "zsh", "fish"}),
        ],
    )
    def test_bash_completes(self, tmp_path: Path, line: str, offered: set[str]) -> None:
        bash = shutil.which("bash")
        assert bash
        script = subprocess.run(
            [*FPGPU, "completion", "bash"], check=True, capture_output=True, text=True
        ).stdout
        (tmp_path / "script").write_text(script)
        # What the tab key does: the function that the script registers is called with the words.
        words = shlex.join([*line.split(), *([""] if line.endswith(" ") else [])])
        asked = f"""
            source {tmp_path}/script
            COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
            COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}
            function=$(complete -p fpgpu | sed 's/.*-F \\([^ ]*\\).*/\\1/')
            $function fpgpu "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run([bash, "-c", asked], capture_output=True, text=True, cwd=tmp_path)
        assert offered <= set(done.stdout.split()), done.stderr
        if line.endswith(("in", "--js")):
            assert offered == set(done.stdout.split())

    @pytest.mark.parametrize(("shell", "start"), [("zsh", "#compdef fpgpu"), ("fish", "")])
    def test_other_shells_read_their_script(
        self, fpgpu_command: Run, tmp_path: Path, shell: str, start: str
    ) -> None:
        script = fpgpu_command("completion", shell)
        assert script.code == 0
        assert script.out.lstrip().startswith(start)
        assert all(name in script.out for name in COMMANDS)
        program = shutil.which(shell)
        if program:
            (tmp_path / "script").write_text(script.out)
            subprocess.run([program, "-n", tmp_path / "script"], check=True)
