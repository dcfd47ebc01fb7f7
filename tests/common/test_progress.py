from common.progress import in_steps, no_progress


def test_progress_is_passed_on_in_steps() -> None:
    passed_on: list[float] = []
    advance = in_steps(passed_on.append, 10)
    for _ in range(7):
        advance(3)
    assert passed_on == [12]
    advance(40)
    assert passed_on == [12, 49]


def test_work_without_progress_runs() -> None:
    with no_progress("reading", 3) as advance:
        advance(3)
