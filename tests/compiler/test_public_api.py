"""What `import planish` offers."""

import pytest

import planish
from planish.cli.progress import Drawn


@pytest.mark.parametrize("name", planish.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(planish, name) is not None


def test_functions_are_not_hidden_by_modules() -> None:
    import planish.capturing
    import planish.compilation

    assert callable(planish.capture)
    assert callable(planish.compile)


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'captured'"):
        _ = planish.captured


def test_names_are_listed() -> None:
    assert set(planish.__all__) <= set(dir(planish))


def test_progress_on_a_terminal_and_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    for terminal in (True, False):
        with Drawn(Console(stderr=True, force_terminal=terminal)) as progress:
            progress.status("working")
            progress.status("still working")
            assert list(progress.track(range(3), "items")) == [0, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "still working\n" in captured.err
