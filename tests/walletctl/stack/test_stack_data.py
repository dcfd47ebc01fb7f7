from pathlib import Path

import pytest

from walletctl.stack import data
from walletctl.stack.errors import AlreadyRunningError, SetupError
from walletctl.stack.state import STATE_FILE, StackState, stack_lock, write_state


def make_stack(directory: Path, *, ephemeral: bool) -> StackState:
    for name in ("postgres", "kafka", "logs"):
        (directory / name).mkdir()
        (directory / name / "file").write_text("x")
    state = StackState(supervisor_pid=1, ephemeral=ephemeral, ports={})
    write_state(directory, state)
    return state


def test_only_what_a_stack_made_is_deleted(tmp_path: Path) -> None:
    make_stack(tmp_path, ephemeral=False)
    (tmp_path / "letter.txt").write_text("mine")
    data.reset(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_directory_with_nothing_else_is_deleted_too(tmp_path: Path) -> None:
    directory = tmp_path / "stack"
    directory.mkdir()
    make_stack(directory, ephemeral=False)
    data.reset(directory)
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_removed_and_what_it_points_to_stays(tmp_path: Path) -> None:
    kept, directory = tmp_path / "kept", tmp_path / "stack"
    kept.mkdir()
    directory.mkdir()
    (kept / "file").write_text("mine")
    (directory / "kafka").symlink_to(kept)
    data.delete_servers_data(directory)
    assert not (directory / "kafka").exists()
    assert (kept / "file").exists()


def test_a_running_stack_is_not_reset(tmp_path: Path) -> None:
    make_stack(tmp_path, ephemeral=False)
    with stack_lock(tmp_path), pytest.raises(AlreadyRunningError):
        data.reset(tmp_path)
    assert (tmp_path / "postgres" / "file").exists()


def test_data_that_no_stack_made_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    with pytest.raises(SetupError, match="was not made by a stack"):
        data.check_usable(tmp_path, None, ephemeral=False)
    assert data.owned_by_a_stack(tmp_path) == []


def test_an_ephemeral_stack_does_not_delete_kept_data(tmp_path: Path) -> None:
    state = make_stack(tmp_path, ephemeral=False)
    data.check_usable(tmp_path, state, ephemeral=False)
    with pytest.raises(SetupError, match="stack reset"):
        data.check_usable(tmp_path, state, ephemeral=True)


def test_an_ephemeral_stack_takes_over_the_data_of_another(tmp_path: Path) -> None:
    state = make_stack(tmp_path, ephemeral=True)
    data.check_usable(tmp_path, state, ephemeral=True)
    data.delete_servers_data(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", STATE_FILE]
