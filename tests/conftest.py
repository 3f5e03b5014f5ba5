"""Fixtures of the whole suite."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import BACKENDS, Backend, Launches
from installs import Install, fill

import gpurnn

MOST_WORKERS = 4  # each compiles for itself and holds about 1 GB of what it compiled; layers have threads of their own


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """A worker a CPU for folders of tests. Single files and tests start sooner without, and a GPU is not shared."""
    if config.option.numprocesses != "auto":
        return None
    if config.option.markexpr == "gpu" or not all(Path(argument).is_dir() for argument in config.args):
        return 0
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, MOST_WORKERS) if cpus > 1 else 0


def _parameters(*names: str) -> list[Any]:
    return [pytest.param(BACKENDS[name], id=name, marks=pytest.mark.gpu if name == "cuda" else ()) for name in names]


@pytest.fixture(params=_parameters(*BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    """The one place where a backend joins the suite: `pytest -m gpu` runs what has a GPU among its backends."""
    if why := request.param.missing():
        pytest.skip(f"{request.param.name}: {why}")
    return request.param


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """An installation with a cache: nobody changes it."""
    return fill(tmp_path_factory.mktemp("install"))


@pytest.fixture
def install(filled: Install, tmp_path: Path) -> Install:
    """A copy for one test."""
    site, cache = (Path(shutil.copytree(path, tmp_path / path.name)) for path in filled[:2])
    return filled._replace(site=site, cache=cache)


@pytest.fixture
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=_parameters("cuda-emulated", "cuda"))
def device_backend(request: pytest.FixtureRequest) -> Backend:
    """A backend whose arrays lie on a device: the emulated one, and a GPU."""
    if why := request.param.missing():
        pytest.skip(f"{request.param.name}: {why}")
    return request.param


@pytest.fixture
def another_device(device_backend: Backend) -> Any:
    """A device beside the first one of the backend."""
    if len(device_backend.devices()) < 2:
        pytest.skip("this machine has one GPU")
    return device_backend.devices()[1]


@pytest.fixture
def launches(device_backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Launches:
    """Counts what is launched on the backend's first device, by launchers that are made from here on."""
    return Launches(device_backend.device, monkeypatch)


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is not initialised holds NaN, or large integers: what no kernel writes shows."""
    plain, plain_like = np.empty, np.empty_like

    def poisoned(array: Any) -> Any:
        if array.dtype.kind in "fc":
            array.fill(np.nan)
        elif array.dtype == np.uint8:
            array.fill(0xFF)  # NaN in a view as floats, which is what the kernels' scratch memory is
        elif array.dtype.kind in "iu":
            array.fill(np.iinfo(array.dtype).max // 2)
        return array

    from gpurnn_kernels.cpu.programs.buffers import Arrays

    take = Arrays.take
    monkeypatch.setattr(Arrays, "take", lambda self, key: None if (found := take(self, key)) is None else poisoned(found))
    monkeypatch.setattr(np, "empty", lambda *args, **kwargs: poisoned(plain(*args, **kwargs)))
    monkeypatch.setattr(np, "empty_like", lambda *args, **kwargs: poisoned(plain_like(*args, **kwargs)))


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = gpurnn.get_num_threads()
    yield
    gpurnn.set_num_threads(before)


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls share their work with other threads however small they are, and on a busy machine, too."""
    from gpurnn_kernels.cpu.threads import partition as schedule
    from gpurnn_kernels.cpu.threads.team import TEAM

    monkeypatch.setattr(schedule, "_LEAST_CALL", 0.0)
    monkeypatch.setattr(TEAM, "_rest_until", 0.0)
    monkeypatch.setattr(TEAM, "_notice", lambda _: None)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small layers cut their work into blocks of rows and chunks of steps, as large ones do."""
    from gpurnn_kernels.cpu.programs import blocking

    monkeypatch.setattr(blocking, "ROWS_BYTES", 1)
    monkeypatch.setattr(blocking, "SLOT_BYTES", 1)


@pytest.fixture
def stepwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer on a device runs step by step, even if it fits on the chip."""
    from gpurnn_kernels.cuda import persistent

    for name in ("fit_forward", "fit_backward"):
        monkeypatch.setattr(persistent, name, lambda *_: persistent.Refusal("the test asks for steps"))
