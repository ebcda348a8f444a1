"""Many meta-training runs as one: each in its folder, resumed after any kill.

A job is a name and settings. ``sweep`` trains each job in ``folder/name``,
which is an ordinary run folder. At the end, and at the looks that the job asks
for, it passes the experiment and its state to ``measure``. It writes the
outcome to ``folder/name/result.json``, and this file completes the job. A
repeated call reads this file, and computes only the missing results; an
interrupted run continues from its last checkpoint. A run's numbers depend
neither on the number of processes nor on interruptions.

A job's folder has three more files than a run's (folder.py). result.json and
look-N.json, N the meta-step of a look, hold an object: ``settings`` and ``by``
of the job, ``result``, the object that ``measure`` returned, and
``measured_by``, the provenance of that. result.json also has ``looks``, the
results of the looks by their meta-step, and ``training``, the facts of the run
(``RunFolder.facts``). .job is the job's lock, and empty.

Each job runs in a fresh process of this machine, with one thread. With
``scheduler``, jobs run on the workers of a Dask cluster instead, which must see
the same folder (and the same data). If a worker dies, the next worker that
takes its job resumes it from the checkpoint.

Several sweeps may share a folder and its jobs. A process that finds a job
locked waits for the lock, then takes the result of the other process. So no job
is computed twice where all processes see each other's locks (flock): on one
machine, and on machines whose file system passes locks on. Windows has no such
locks: use one sweep at a time per folder there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from threading import Event, RLock, Thread
from types import ModuleType
from typing import Any, NamedTuple

from ..arrays.threads import available_cores
from ..errors import CheckpointError, MinimetaError, SettingsError, SweepError, one_line
from ..files import (
    MEBIBYTE,
    locked,
    make_folder,
    opened,
    parsed_json,
    read_bytes,
    read_json,
    remove_parts_of,
    write_atomically,
    write_new,
)
from ..training.evaluation import CHUNK
from .experiment import Experiment
from .folder import RunFolder
from .processes import Died, fresh_processes
from .provenance import provenance
from .settings import Settings
from .train import Saving, load, settings_in, train

# measure(experiment, state, **by) -> a JSON object
Measure = Callable[..., dict[str, Any]]

SAY_SO_AFTER = 5.0  # seconds of waiting for another process
_LARGEST = 1024 * MEBIBYTE  # bytes of a file of results
_SAVING = Saving(10, 20)
_SCORED = ".scored"  # in a run folder: the number of tasks that the current evaluation has scored


class Work(NamedTuple):
    """The work of scoring, which the progress bar adds to that of training.

    ``measure`` scores ``at_look`` tasks at a look and ``at_end`` tasks at the
    end. For each of them ``examples`` pass through the network. A gradient
    counts as three passes.
    """

    at_look: int = 0
    at_end: int = 0
    examples: float = 0.0


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    ``name`` is the name of its folder. ``looks`` are meta-steps after which the
    run is measured too. The end is always measured, and is not a look. ``by``
    holds keyword arguments of ``measure``, such as a number of test tasks; they
    must fit into JSON. A result that was measured with other arguments is
    refused. ``work`` is for the progress bar.

    Raises
    ------
    SettingsError
        if a look is not one of the run's meta-steps.
    """

    name: str
    settings: Settings
    looks: tuple[int, ...] = ()
    by: Mapping[str, Any] = field(default_factory=dict, hash=False)
    work: Work = Work()

    def __post_init__(self) -> None:
        end = self.settings.training.iterations
        if beyond := [look for look in self.looks if not 0 < look <= end]:
            raise SettingsError(
                f"a look of {self.name} must be between 1 and its {end} meta-steps, got {beyond[0]}"
            )
        object.__setattr__(self, "looks", tuple(sorted(set(self.looks) - {end})))


class Finished(NamedTuple):
    """The outcome of ``measure`` at the end of a run, and at each look.

    ``looks`` is keyed by the meta-step. ``training`` holds the facts in the
    run's metrics: seconds, peak memory, provenance and images. The peak memory
    of a Dask worker covers all its jobs so far. ``measured_by`` is the
    provenance of ``result``; None in older result files.
    """

    result: dict[str, Any]
    looks: dict[int, dict[str, Any]]
    training: dict[str, Any]
    measured_by: dict[str, Any] | None = None


class Failure(NamedTuple):
    """Why a job has no result.

    ``error`` is set if it is not one of minimeta's own errors; its notes hold
    the traceback.
    """

    told: str
    error: BaseException | None = None


def sweep(
    jobs: Sequence[Job],
    folder: str | os.PathLike,
    measure: Measure,
    *,
    data: str | None = None,
    processes: int | None = None,
    scheduler: str | None = None,
    progress: bool | None = False,
    saving: Saving = _SAVING,
) -> dict[str, Finished]:
    """Train and measure every job; return the outcomes by name.

    The outcomes are in the order of ``jobs``. ``measure(experiment, state,
    **by)`` gets the job's experiment, whose data are loaded once, the state
    that training has reached, and the job's ``by``. If ``measure`` has a
    parameter ``progress``, it also gets a function to pass on to ``evaluate``,
    by which the progress bar counts the scored tasks. Another process must be
    able to import ``measure``. The workers of a cluster also get the modules in
    its folder. ``data`` is the folder of the images. ``processes`` defaults to
    the number of cores. With 0 the jobs run in this process, one after another;
    then ``measure`` may be any function, such as one of a notebook.
    ``scheduler`` is the address of a Dask scheduler, ``tcp://HOST:PORT``, which
    replaces local processes. ``saving`` sets how often runs write metrics and
    checkpoints. ``progress`` shows a bar; None shows it on a terminal only.

    Raises
    ------
    SweepError
        if jobs failed, once all other jobs are done; names each job and the
        reason.
    SettingsError
        if two jobs share a name, or a name cannot be a folder's; if other
        processes cannot import ``measure``; if a folder holds a run with other
        settings, other arguments of ``measure`` or without these looks; or if
        runs of one task used different images.
    CheckpointError
        if a file of a job is damaged.
    KeyboardInterrupt
        on Ctrl-C, at once; jobs that run on this machine are stopped.
    """
    root = Path(folder).absolute()  # a worker may have another working directory
    data = None if data is None else str(Path(data).absolute())
    try:
        make_folder(root)
    except OSError as error:
        raise SettingsError(f"{root} cannot be used as a folder of runs: {error}") from error
    _check(jobs, root)
    if not scheduler and processes != 0:
        _check_importable(measure, jobs)
    results = {job.name: _result(job, root / job.name) for job in jobs}
    _check_images(jobs, results)
    missing = [job for job in jobs if results[job.name] is None]
    failures: dict[str, Failure] = {}
    try:
        with _watched(jobs, root, progress), _submitter(scheduler, processes) as submit:
            for index, outcome in submit(
                [(job, root / job.name, measure, data, saving) for job in missing]
            ):
                kept = failures if isinstance(outcome, Failure) else results
                kept[missing[index].name] = outcome
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped: the same call continues the sweep from the checkpoints in {root}"
        ) from None
    if failures:
        _raise(failures, len(jobs))
    _check_images(jobs, results)
    return {job.name: _finished(results[job.name]) for job in jobs}


def _raise(failures: dict[str, Failure], count: int) -> None:
    """Raise one SweepError; its cause holds the unexpected errors."""
    told = "\n".join(
        f"  {one_line(f'{name}: {failure.told}')}" for name, failure in failures.items()
    )
    errors = [failure.error for failure in failures.values() if failure.error is not None]
    cause = (
        errors[0]
        if len(errors) == 1
        else BaseExceptionGroup("in these runs", errors)
        if errors
        else None
    )
    raise SweepError(
        f"{len(failures)} of {count} runs failed; the results of the others are kept:\n{told}"
    ) from cause


def _check_images(jobs: Sequence[Job], results: Mapping[str, dict[str, Any] | None]) -> None:
    """Raise a SettingsError if runs of one task used different images."""
    of_task: dict[str, dict[str, str]] = {}
    for job in jobs:
        contents = results[job.name]
        if contents is not None and (images := contents["training"].get("images")):
            task = job.settings.to_dict()["task"]["type"]
            of_task.setdefault(task, {})[json.dumps(images)] = job.name
    for seen in of_task.values():
        if len(seen) > 1:
            told = "; ".join(f"{name}: {images}" for images, name in seen.items())
            raise SettingsError(
                f"runs used different images: name another folder for this sweep ({told})"
            )


def run_job(
    job: Job, path: Path, measure: Measure, data: str | None, saving: Saving = _SAVING
) -> dict[str, Any]:
    """Complete a job and return the contents of its result file."""
    try:
        make_folder(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be used as a run folder: {error}") from error
    with _alone(path / ".job"):
        for name in ("result.json", *(f"look-{look}.json" for look in job.looks)):
            remove_parts_of(path / name)
        done = _result(job, path)
        if done is not None:  # by another sweep, or a process that was believed dead
            return done

        experiment = Experiment(job.settings, data, workers=1)

        def measured(iteration: int) -> dict[str, Any]:
            return _measured(job, path, measure, experiment, saving, iteration)

        looks = {str(look): _look(job, path, measured, look) for look in job.looks}
        result = measured(job.settings.training.iterations)
        contents = {"result": result, "looks": looks, "training": RunFolder(path).facts()}
        return _write(path / "result.json", job, contents)


def attempt(job: Job, path: Path, *how: Any) -> dict[str, Any] | Failure:
    """``run_job`` in another process, which returns errors as results."""
    from tqdm import tqdm

    # tqdm's own lock is a semaphore, which a killed process would leave behind.
    tqdm.set_lock(RLock())
    return attempt_here(job, path, *how)


def attempt_here(job: Job, path: Path, *how: Any) -> dict[str, Any] | Failure:
    """``run_job``, which returns errors as results."""
    try:
        return run_job(job, path, *how)
    except MinimetaError as error:
        return Failure(str(error) or type(error).__name__)
    except Exception as error:  # an error of a measure fails only its job; the sweep raises it last
        told = f"{type(error).__name__}: {error}"
        return Failure(told, _portable(error, told))


def _portable(error: Exception, told: str) -> Exception:
    """The error with its traceback as a note.

    An error that cannot be pickled becomes a RuntimeError with the same
    message.
    """
    note = f"in the run's own process:\n{traceback.format_exc()}"
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # the author of an exception decides how it is pickled
        error = RuntimeError(told)
    error.add_note(note)
    return error


def _look(
    job: Job, path: Path, measured: Callable[[int], dict[str, Any]], iteration: int
) -> dict[str, Any]:
    """The result of a look: stored when the run was there, or measured now."""
    file, remedy = path / f"look-{iteration}.json", f"delete {path} to compute this job again"
    contents = _read(file, remedy)
    if contents is None:
        contents = _write(file, job, {"result": measured(iteration)})
    with _whole(file, remedy):
        _check_of(job, file, contents)
        return _object(contents["result"])


def _measured(
    job: Job, path: Path, measure: Measure, experiment: Experiment, saving: Saving, iteration: int
) -> dict[str, Any]:
    """Train until ``iteration`` and measure."""
    begun = os.path.lexists(RunFolder(path).config_path)
    state = train(experiment, path, resume=begun, saving=saving, until=iteration)
    if state.iteration != iteration:
        raise SettingsError(
            f"{path} is already at meta-step {state.iteration} and cannot be measured at "
            f"{iteration}: looks cannot be added to a run"
        )
    file, how = path / _SCORED, {}
    if "progress" in signature(measure).parameters:
        how["progress"] = partial(_counted, file)
    try:
        measured = measure(experiment, state, **job.by, **how)
    finally:
        file.unlink(missing_ok=True)
    if not isinstance(measured, dict):
        raise TypeError(f"measure must return a JSON object, got {type(measured).__name__}")
    return measured


def _counted(file: Path, batches: Iterable[Sequence]) -> Iterator[Sequence]:
    """The batches of an evaluation; ``file`` holds the number of tasks done."""
    scored, told = _number_in(file), 0.0
    for batch in batches:
        yield batch
        scored += CHUNK * len(batch)
        if time.monotonic() - told > 0.5:
            _tell(file, scored)
            told = time.monotonic()
    _tell(file, scored)


def _tell(file: Path, scored: int) -> None:
    write_atomically(file, lambda opened: opened.write(str(scored).encode()))


def _number_in(file: Path) -> int:
    """The number in a file; 0 without one."""
    try:
        return int(read_bytes(file, 20))
    except (OSError, ValueError):
        return 0


def _write(path: Path, job: Job, contents: dict[str, Any]) -> dict[str, Any]:
    """Write ``contents`` with their settings and provenance to a file.

    Return the contents as a reader of the file will see them.
    """
    contents = {
        "settings": job.settings.to_dict(),
        "by": dict(job.by),
        "measured_by": provenance(),
    } | contents
    try:
        text = json.dumps(contents, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise type(error)(f"measure must return values that JSON can hold: {error}") from error
    try:
        write_new(path, lambda file: file.write(text.encode()))
    except FileExistsError as error:  # where a system has no locks
        raise CheckpointError(
            f"{path} was written by another process: the same call takes its result"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error}") from error
    return json.loads(text)


@contextmanager
def _whole(file: Path, remedy: str) -> Iterator[None]:
    """Raise a CheckpointError if contents of ``file`` are missing or wrong.

    The error names the file and the ``remedy``.
    """
    try:
        yield
    except SettingsError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{file} is damaged: {type(error).__name__}: {error}; {remedy}"
        ) from error


def _check_of(job: Job, file: Path, contents: dict[str, Any]) -> None:
    """Raise a SettingsError if a file has other settings or measurements."""
    if settings_in(file, contents["settings"]).flags() != job.settings.flags():
        raise SettingsError(
            f"{file} belongs to a run with other settings: name another folder for this sweep"
        )
    if contents["by"] != json.loads(json.dumps(dict(job.by))):
        raise SettingsError(
            f"{file} was measured by {json.dumps(contents['by'])}, not "
            f"{json.dumps(dict(job.by))}: name another folder for this sweep, or delete "
            "result.json to measure the end of the run again"
        )


def _read(file: Path, remedy: str) -> dict[str, Any] | None:
    """A JSON object from a file; None without a file.

    Raises
    ------
    CheckpointError
        if the file holds anything else; names the file and the ``remedy``.
    """
    try:
        contents = read_json(file, _LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}; {remedy}") from error
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error}; {remedy}") from error
    if not isinstance(contents, dict):
        raise CheckpointError(f"{file} is damaged: it must hold a JSON object; {remedy}")
    return contents


def _result(job: Job, path: Path) -> dict[str, Any] | None:
    """The contents of a finished job's result file, with the job's looks."""
    file, remedy = path / "result.json", "delete it to finish the job again"
    contents = _read(file, remedy)
    if contents is None:
        return None
    with _whole(file, remedy):
        _finished(contents)
        _check_of(job, file, contents)
    lacking = [look for look in job.looks if str(look) not in contents["looks"]]
    if lacking:
        raise SettingsError(
            f"{file} lacks the look after {lacking[0]} meta-steps: "
            "name another folder for this sweep"
        )
    return contents | {"looks": {str(look): contents["looks"][str(look)] for look in job.looks}}


def _finished(contents: dict[str, Any]) -> Finished:
    looks = {int(look): _object(result) for look, result in contents["looks"].items()}
    result, training = _object(contents["result"]), _object(contents["training"])
    return Finished(result, looks, training, contents.get("measured_by"))


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"an object is expected, got {value!r}")
    return value


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until this process holds ``lock``; warn if that takes long."""
    since, said = time.monotonic(), False
    while True:
        with ExitStack() as stack:
            try:
                alone = stack.enter_context(locked(lock))
            except OSError as error:
                raise CheckpointError(f"{lock} cannot be a lock: {error}") from error
            if alone:
                yield
                return
        if not said and time.monotonic() - since > SAY_SO_AFTER:
            said = True
            warnings.warn(
                f"another process is computing {lock.parent}: waiting for its result", stacklevel=1
            )
        time.sleep(0.2)


def _check(jobs: Sequence[Job], root: Path) -> None:
    names = [job.name for job in jobs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(
            f"jobs of a sweep need different names: {', '.join(twice)} occurs more than once"
        )
    for job in jobs:
        if Path(job.name).name != job.name or not job.name.strip("."):
            raise SettingsError(f"a job's name must be the name of a folder, got {job.name!r}")
        run = RunFolder(root / job.name)
        begun = os.path.lexists(run.config_path)
        if begun and settings_in(run.config_path, run.config()).flags() != job.settings.flags():
            raise SettingsError(
                f"{run.path} holds a run with other settings: name another folder for this sweep"
            )
        if run.begun and not os.path.lexists(run.path / "result.json"):
            _check_checkpoint(run, job.settings)


def _check_checkpoint(run: RunFolder, settings: Settings) -> None:
    """Raise a CheckpointError if the run cannot continue."""
    try:
        load(run, settings, run.config())
    except CheckpointError as error:
        raise CheckpointError(f"{error}; delete {run.path} to compute this job again") from error


Submit = Callable[[list[tuple]], Iterator[tuple[int, Any]]]


@contextmanager
def _submitter(scheduler: str | None, processes: int | None) -> Iterator[Submit]:
    """A function that calls ``attempt`` with each of the given arguments.

    It yields the index of each call with its outcome, as calls end.
    """
    if processes is not None and processes < 0:
        raise SettingsError(f"processes must be 1 or more, or 0 for this process, got {processes}")
    if scheduler:
        chosen = _on_cluster(scheduler)
    elif processes == 0:
        chosen = nullcontext(_one_after_another)
    else:
        chosen = _on_this_machine(processes or available_cores())
    with chosen as submit:
        yield submit


def _one_after_another(arguments: list[tuple]) -> Iterator[tuple[int, Any]]:
    for index, each in enumerate(arguments):
        yield index, attempt_here(*each)


def _check_importable(measure: Measure, jobs: Sequence[Job]) -> None:
    """Raise a SettingsError if fresh processes cannot import ``measure``, or a
    class in the settings of ``jobs``."""
    try:
        packed = pickle.dumps((measure, *jobs))
    except Exception as error:  # an object decides how it is pickled
        why = f"{type(error).__name__}: {error}"
    else:
        program = getattr(sys.modules["__main__"], "__file__", "")  # of stdin: no file
        if os.path.isfile(program) or b"__main__" not in packed:
            return
        why = "measure or a class of the jobs is defined in a notebook or an interactive session"
    raise SettingsError(
        f"other processes cannot import this sweep ({why}): put measure and the classes at the top "
        "level of a module file, or call sweep with processes=0, which runs the jobs in this "
        "process"
    )


def _without_arguments(measure: Measure) -> Any:
    """The function in a ``partial`` of a ``partial`` of a function."""
    while isinstance(measure, partial):
        measure = measure.func
    return measure


@contextmanager
def _on_this_machine(processes: int) -> Iterator[Submit]:
    with fresh_processes(processes) as calls:

        def submit(arguments: list[tuple]) -> Iterator[tuple[int, Any]]:
            for index, outcome in calls(attempt, arguments):
                yield index, Failure(outcome.how) if isinstance(outcome, Died) else outcome

        yield submit


@contextmanager
def _on_cluster(scheduler: str) -> Iterator[Submit]:
    try:
        import distributed
    except ImportError:
        raise SettingsError("scheduler needs Dask: pip install 'minimeta[dask]'") from None
    try:
        # A client that finds no scheduler is left half made. It closes when it
        # is collected, and may then wait for a lock of another client for ever.
        # So a plain connection goes first.
        # This thread may run a loop of its own, in a notebook.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, _connected(scheduler)).result()
        client = distributed.Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:  # ValueError: not an address
        raise SettingsError(f"no Dask scheduler answers at {scheduler}: {error}") from error

    def submit(arguments: list[tuple]) -> Iterator[tuple[int, Any]]:
        if arguments:
            _say_if_no_worker(client, scheduler)
        # pure=False: the result of a job depends on its folder too, not only on
        # its arguments.
        futures = [client.submit(attempt_packed, _packed(each), pure=False) for each in arguments]
        places = {future.key: index for index, future in enumerate(futures)}
        for future in distributed.as_completed(futures):
            yield places[future.key], _outcome(future)

    with _logging_less():
        try:
            yield submit
        finally:
            client.close()


def _say_if_no_worker(client: Any, scheduler: str) -> None:
    """Warn if the cluster has no worker, even after some seconds."""
    try:
        client.wait_for_workers(1, timeout=SAY_SO_AFTER)
    except TimeoutError:
        warnings.warn(
            f"the Dask scheduler at {scheduler} has no workers: the jobs wait until one starts "
            f"(dask worker {scheduler})",
            stacklevel=1,
        )
    except OSError:  # the connection is lost, which the jobs will tell
        return


@contextmanager
def _logging_less() -> Iterator[None]:
    """Keep Dask from logging a lost connection, which jobs' outcomes tell."""
    loggers = [logging.getLogger(f"distributed.{name}") for name in ("client", "utils")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


async def _connected(scheduler: str) -> None:
    """Connect to a scheduler, and close the connection."""
    from distributed.comm import connect

    connection = await connect(scheduler, timeout=10)
    await connection.close()


def _outcome(future: Any) -> Any:
    """The result of a call on a cluster, or the reason why it has none."""
    if future.cancelled():
        return Failure(
            "lost with its scheduler: the same call continues the sweep from the last checkpoint"
        )
    error = future.exception()
    return future.result() if error is None else Failure(f"{type(error).__name__}: {error}", error)


def attempt_packed(packed: bytes) -> dict[str, Any] | Failure:
    """``attempt`` on a cluster, with arguments packed by ``_packed``."""
    try:
        arguments = pickle.loads(packed)
    except Exception as error:  # an import may raise anything
        told = f"a worker cannot load measure: {type(error).__name__}: {error}"
        return Failure(told, _portable(error, told))
    return attempt(*arguments)


def _packed(arguments: tuple) -> bytes:
    """Arguments of ``attempt`` as bytes.

    They contain the code of ``measure``, unless it is in an installed package.
    """
    import cloudpickle

    modules = _beside(arguments[2])
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(arguments)
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _beside(measure: Measure) -> list[ModuleType]:
    """The modules of ``measure`` that another machine cannot import.

    They are the loaded modules in the folder of ``measure``'s own module,
    unless that module belongs to a package or is installed.
    """
    own = sys.modules.get(_without_arguments(measure).__module__)
    file = getattr(own, "__file__", None)
    if file is None or own.__package__ or "site-packages" in Path(file).parts:
        return []
    folder = Path(file).absolute().parent
    return [
        module
        for name, module in list(sys.modules.items())
        if name not in ("__main__", "__mp_main__") and name == getattr(module, "__name__", None)
        if (where := getattr(module, "__file__", None)) and Path(where).absolute().parent == folder
    ]


@contextmanager
def _watched(jobs: Sequence[Job], root: Path, progress: bool | None) -> Iterator[None]:
    """A progress bar over the work of all jobs, read from their folders.

    The work is counted in examples that pass through the network, in training
    and in scoring, so that the remaining time is right where scoring takes most
    of it.
    """
    from tqdm.auto import tqdm

    over, done = Event(), {job.name: 0.0 for job in jobs}
    total = {job.name: _all_work(job) for job in jobs}

    def look() -> float:
        for job in jobs:
            if done[job.name] < total[job.name]:  # and never less than before
                done[job.name] = max(done[job.name], _work_done(job, root / job.name))
        return sum(done.values())

    def show(bar: Any) -> None:
        measured = sum((root / job.name / "result.json").exists() for job in jobs)
        bar.set_postfix_str(f"{measured} of {len(jobs)} runs measured", refresh=False)
        bar.update(look() - bar.n)
        bar.refresh()

    def watch(bar: Any) -> None:
        while not over.wait(1.0):
            show(bar)

    with tqdm(
        total=sum(total.values()),
        initial=look(),
        unit=" examples",
        unit_scale=True,
        smoothing=0,  # training and scoring alternate: their average speed tells the end
        disable=None if progress is None else not progress,
    ) as bar:
        watcher = Thread(target=watch, args=(bar,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            show(bar)


def _of_training(job: Job) -> int:
    """The work of one meta-step: k gradients for each task."""
    schedule = job.settings.schedule
    return 3 * job.settings.training.meta_batch * schedule.k * schedule.size


def _all_work(job: Job) -> float:
    scored = len(job.looks) * job.work.at_look + job.work.at_end
    return job.settings.training.iterations * _of_training(job) + scored * job.work.examples


def _work_done(job: Job, path: Path) -> float:
    """The part of ``_all_work`` that is done."""
    if (path / "result.json").exists():
        return _all_work(job)
    looks = sum((path / f"look-{look}.json").exists() for look in job.looks)
    steps = _steps_done(path / "metrics.jsonl")
    ended = steps >= job.settings.training.iterations and looks == len(job.looks)
    most = job.work.at_end if ended else job.work.at_look
    scored = looks * job.work.at_look + min(_number_in(path / _SCORED), most)
    return steps * _of_training(job) + scored * job.work.examples


def _steps_done(metrics: Path) -> int:
    """The iteration in the last whole line of the file; 0 without a line."""
    try:
        with opened(metrics, "read") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().rpartition(b"\n")[0].splitlines()
        return int(parsed_json(lines[-1])["iteration"])
    except (OSError, IndexError, ValueError, KeyError, TypeError):
        return 0  # the run has not started, or a line is being written: try again later
