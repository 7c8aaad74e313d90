"""Whoever does the work, the store is the same; a worker that dies takes one file with it."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from fpgpu.errors import ExecutorError, MissingExtraError, UnusableExposureError
from fpgpu.ingest import clusters, executors
from fpgpu.ingest.pipeline import ingest
from fpgpu.ingest.workers import is_lost
from tests.ingest.clusters import ROOT, dask_cluster, fpgpu_command, mpi_command
from tests.ingest.contents import contents
from tests.ingest.deadly_reader import make_deadly_file
from tests.ingest.smallfiles import make_small_files


@pytest.fixture(scope="module")
def files(golden, field):
    """Several bands, with and without gWCS; of two sizes, so that some are refused."""
    return [*sorted((golden / "tiny").glob("exp_*.fits.gz")), *field.files]


@pytest.fixture(scope="module")
def expected(files, tmp_path_factory):
    """What one process makes of them, in order."""
    out = tmp_path_factory.mktemp("serial") / "stores"
    report = ingest(files, out, executor="serial")
    return contents(out), outcome(report)


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dask")
    with dask_cluster(folder, preload="tests/ingest/deadly_reader.py") as cluster:
        yield cluster.executor


def outcome(report):
    return [(row.file, row.status, row.band, row.expID, row.n_masked) for row in report.rows]


def test_one_process_takes_what_fits_together(expected):
    _, rows = expected
    assert [status for _, status, *_ in rows] == ["stored"] * 6 + ["refused"] * 2


def test_processes_make_the_same_store_and_the_same_report(files, expected, tmp_path):
    seen = []
    report = ingest(files, tmp_path / "s", executor="processes", workers=2, on_progress=seen.append)
    assert (contents(tmp_path / "s"), outcome(report)) == expected
    assert seen == report.rows
    assert all(row.peak_bytes > 1e6 for row in report.added)


def test_processes_begin_with_the_libraries_that_read_exposures():
    workers = executors.open_workers("processes", 2)
    try:
        # Before any work: what a fresh process would have to import for its first exposure.
        known = workers.submit(eval, "set(__import__('sys').modules)").result()
        assert {"asdf", "asdf_astropy", "astropy.wcs", "gwcs"} <= known
        # Nor do they look through all of these for garbage.
        assert workers.submit(eval, "__import__('gc').get_freeze_count()").result() > 10_000
    finally:
        workers.close()


def test_a_dask_cluster_makes_the_same_store_and_the_same_report(files, expected, dask, tmp_path):
    report = ingest(files, tmp_path / "s", executor=dask)
    assert (contents(tmp_path / "s"), outcome(report)) == expected


def test_so_does_the_executor_of_a_dask_client(files, expected, dask, tmp_path):
    from distributed import Client

    with Client(dask.replace("dask://", "tcp://"), set_as_default=False) as client:
        report = ingest(files, tmp_path / "s", executor=client.get_executor())
        assert (contents(tmp_path / "s"), outcome(report)) == expected
        assert client.get_executor().submit(len, "abc").result() == 3


@pytest.mark.parametrize("kind", [ProcessPoolExecutor, ThreadPoolExecutor])
def test_so_does_any_executor_and_it_is_not_shut_down(files, expected, kind, tmp_path):
    with kind(2) as pool:
        report = ingest(files, tmp_path / "s", executor=pool)
        assert (contents(tmp_path / "s"), outcome(report)) == expected
        assert pool.submit(len, "abc").result() == 3


def test_a_refusal_reads_the_same_whether_the_size_was_known_before_or_not(files, tmp_path):
    given = [files[0], files[6]]  # of another size
    with ThreadPoolExecutor(2) as pool:  # begins with both at once
        found = outcome(ingest(given, tmp_path / "s", executor=pool))
    assert found == outcome(ingest(given, tmp_path / "serial", executor="serial"))
    assert found[1][1] == "refused"


def test_a_connection_that_ends_while_workers_are_counted_is_told(dask):
    workers = clusters.DaskWorkers(dask.removeprefix("dask://"))
    workers._client.close()
    with pytest.raises(ExecutorError, match="--resume"):
        _ = workers.n


def test_mpi_ranks_make_the_same_store(files, expected, tmp_path):
    arguments = ["ingest", *map(str, files), "--out", str(tmp_path / "s"), "--executor", "mpi"]
    command, environment = mpi_command(3, *arguments)
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "6 exposures in" in done.stdout
    assert "2 refused" in done.stdout
    assert contents(tmp_path / "s") == expected[0]


@pytest.mark.parametrize(("n_ranks", "is_shared"), [(1, True), (2, False)])
def test_mpi_without_workers_says_how_to_start_it(n_ranks, is_shared, files, tmp_path):
    arguments = ["ingest", str(files[0]), "--out", str(tmp_path / "s"), "--executor", "mpi"]
    command, environment = mpi_command(n_ranks, *arguments)
    if not is_shared:  # each rank is a run of its own
        command = [word for word in command if word != "mpi4py.futures"]
        command.remove("-m")
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "mpiexec -n N python -m mpi4py.futures -m fpgpu ingest" in done.stderr
    assert "an MPI library" in done.stderr
    assert not (tmp_path / "s" / "pixels.h5").exists()


@pytest.mark.parametrize("executor", ["slurm", ["processes"]])
def test_an_executor_that_does_not_exist_is_refused(executor, files, tmp_path):
    with pytest.raises(ExecutorError, match="serial, processes, dask://HOST:PORT, mpi"):
        ingest(files, tmp_path / "s", executor=executor)
    assert not (tmp_path / "s").exists()


def test_less_than_one_worker_is_refused(files, tmp_path):
    with pytest.raises(ExecutorError, match="workers is 0"):
        ingest(files, tmp_path / "s", workers=0)
    assert not (tmp_path / "s").exists()


def test_a_scheduler_that_does_not_answer_is_told(files, tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "DASK_TIMEOUT", 0.5)
    with pytest.raises(ExecutorError, match="no dask scheduler answers at localhost:1"):
        ingest(files, tmp_path / "s", executor="dask://localhost:1")


@pytest.mark.parametrize(
    ("executor", "package", "extra"),
    [("dask://localhost:1", "distributed", "dask"), ("mpi", "mpi4py", "mpi")],
)
def test_a_package_that_is_missing_is_named(executor, package, extra, files, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"fpgpu\[{extra}\]"):
        ingest(files, tmp_path / "s", executor=executor)


def test_exposures_in_memory_are_not_sent_anywhere(files, expected, tmp_path):
    from fpgpu.ingest.readers import read_exposure

    report = ingest([read_exposure(files[0])], tmp_path / "s", executor="processes", workers=2)
    assert report.ok
    key = "F090W/exp_f090w_00"
    assert contents(tmp_path / "s")[key]["flux"] == expected[0][key]["flux"]


DEADLY = """
import json, sys
from pathlib import Path
from fpgpu.ingest import executors
from fpgpu.ingest.pipeline import ingest
from fpgpu.ingest.workers import is_lost
from tests.ingest import deadly_reader
executors.START_METHOD = "fork"  # so that workers know the reader
deadly_reader.install()
out, *files = sys.argv[1:]
report = ingest(files, out, executor="processes", workers=2)
print(json.dumps([[row.status, row.reason] for row in report.rows]))
"""


def test_a_file_that_kills_its_worker_is_refused_and_the_others_go_in(files, expected, tmp_path):
    deadly = [make_deadly_file(tmp_path / f"deadly{n}.fits") for n in range(2)]
    given = [files[0], deadly[0], *files[1:4], deadly[1], *files[4:6]]
    done = subprocess.run(
        [sys.executable, "-c", DEADLY, str(tmp_path / "s"), *map(str, given)],
        capture_output=True, text=True, cwd=ROOT, check=True, timeout=120,
    )  # fmt: skip
    rows = json.loads(done.stdout)
    assert [status for status, _ in rows] == [
        "stored", "refused", "stored", "stored", "stored", "refused", "stored", "stored",
    ]  # fmt: skip
    assert "deadly0.fits: its worker died, and died again when it was alone" in rows[1][1]
    assert contents(tmp_path / "s") == expected[0]


def test_so_it_is_on_a_dask_cluster(files, expected, dask, tmp_path):
    deadly = make_deadly_file(tmp_path / "deadly.fits")
    report = ingest([files[0], deadly, *files[1:6]], tmp_path / "s", executor=dask)
    assert [row.status for row in report.rows] == ["stored", "refused", *["stored"] * 5]
    assert "its worker died" in report.rows[1].reason
    assert contents(tmp_path / "s") == expected[0]


def test_a_scheduler_that_dies_ends_the_run_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "DASK_TIMEOUT", 5.0)  # then it is given up
    given = make_small_files(tmp_path, 60)
    seen = []
    (tmp_path / "dask").mkdir()
    with dask_cluster(tmp_path / "dask") as cluster:

        def kill_scheduler(row):
            seen.append(row)
            cluster.scheduler.kill()

        with pytest.raises(ExecutorError, match="--resume"):
            ingest(given, tmp_path / "s", executor=cluster.executor, on_progress=kill_scheduler)
    assert 0 < len(seen) < 60
    assert len(contents(tmp_path / "s")) == len(seen)
    # What was complete beside them is taken up.
    assert len(ingest(given, tmp_path / "s", resume=True).unchanged) >= len(seen)


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_that_hold_the_lock_of_their_queue_are_ended(method, monkeypatch):
    monkeypatch.setattr(executors, "START_METHOD", method)
    before = multiprocessing.active_children()
    workers = executors.Processes(2)
    assert [workers.submit(len, "abc").result() for _ in range(2)] == [3, 3]
    started = set(multiprocessing.active_children()).difference(before)
    for process in started:
        os.kill(process.pid, signal.SIGSTOP)  # as one that was killed there, it never lets go
    ending = threading.Thread(target=workers.close, daemon=True)
    ending.start()
    ending.join(20)
    assert not ending.is_alive()
    assert started
    assert not any(process.is_alive() for process in started)


def test_giving_up_ends_busy_workers_and_leaves_the_other_processes_of_the_caller():
    # Not by the server that forks workers, which would begin without what they preload.
    own = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    own.start()
    workers = executors.Processes(2)
    pid = workers.submit(os.getpid).result()
    busy = [workers.submit(time.sleep, 60) for _ in range(3)]
    workers.give_up()
    assert own.is_alive()
    own.kill()
    own.join()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert all(is_lost(future.exception(timeout=20)) for future in busy)
    # The same is done when one of them was lost; then there are new ones.
    workers.renew(busy[0].exception())
    assert workers.submit(os.getpid).result() != pid
    workers.close()


def test_strict_stops_at_the_first_in_the_order_of_the_files(files, tmp_path):
    given = [files[0], tmp_path / "no1.fits", *files[1:6], tmp_path / "no2.fits"]
    with pytest.raises(UnusableExposureError, match="no1"):
        ingest(given, tmp_path / "s", executor="processes", workers=2, strict=True)
    assert set(contents(tmp_path / "s")) == {"F090W/exp_f090w_00"}


def session_of(pid):
    """Processes of a session that are alive."""
    command = ["ps", "-o", "pid=,stat=", "-s", str(pid)]
    listed = subprocess.run(command, capture_output=True, text=True)
    return [line for line in listed.stdout.splitlines() if line.split()[1][0] not in "ZX"]


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_publishes_what_is_complete_and_leaves_no_process(files, tmp_path, number):
    many = tmp_path / "many"
    many.mkdir()
    for n in range(200):
        (many / f"e{n}.fits.gz").symlink_to(files[n % 6])
    told = tmp_path / "stderr"
    command = fpgpu_command("ingest", *map(str, sorted(many.iterdir())), "--workers", "2")
    with told.open("w") as stderr:
        run = subprocess.Popen(
            [*command, "--out", str(tmp_path / "s")], cwd=ROOT, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=stderr,
        )  # fmt: skip
    assert wait_until(lambda: "ingest 3/200" in told.read_text())
    assert len(session_of(run.pid)) > 2
    if number == signal.SIGINT:
        os.killpg(run.pid, number)  # as a terminal does
    else:
        run.send_signal(number)
    assert run.wait(timeout=60) == 130
    lines = told.read_text().splitlines()
    assert lines[-1] == "fpgpu ingest: interrupted"
    assert "Traceback" not in told.read_text()
    assert wait_until(lambda: session_of(run.pid) == [])
    found = contents(tmp_path / "s")
    assert len(found) == sum(line.startswith("ingest ") for line in lines) < 200
    assert [path.name for path in (tmp_path / "s").rglob(".*") if path.name != ".commit"] == []


def test_workers_end_with_the_process_that_started_them(files, tmp_path):
    many = [str(files[n % 6]) for n in range(400)]
    run = subprocess.Popen(
        fpgpu_command("ingest", *many, "--out", str(tmp_path / "s"), "--workers", "2"),
        cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    run.stderr.readline()
    run.kill()
    run.wait()
    run.stderr.close()
    assert wait_until(lambda: session_of(run.pid) == [])


def test_a_script_without_a_guard_does_not_run_again_in_its_workers(files, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from fpgpu.ingest.pipeline import ingest\n"
        "print('once')\n"
        "print(len(ingest(sys.argv[2:], sys.argv[1], executor='processes', workers=2).added))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "s"), *map(str, files[:6])],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["once", "6"]
