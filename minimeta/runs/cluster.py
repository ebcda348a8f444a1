"""Jobs of a sweep on the workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import logging
import pickle
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import SettingsError
from .jobs import SAY_SO_AFTER, Failure, Measure, Submit, attempt, portable

CONNECT_WITHIN = 10.0  # seconds in which a scheduler must answer


@contextmanager
def on_cluster(scheduler: str) -> Iterator[Submit]:
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
        client = distributed.Client(scheduler, timeout=CONNECT_WITHIN)
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

    connection = await connect(scheduler, timeout=CONNECT_WITHIN)
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
        return Failure(told, portable(error, told))
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
    own = sys.modules.get(without_arguments(measure).__module__)
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


def without_arguments(measure: Measure) -> Any:
    """The function in a ``partial`` of a ``partial`` of a function."""
    while isinstance(measure, partial):
        measure = measure.func
    return measure
