"""The options and markers of conftest.py: golden texts, processor features."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

GOLDEN_TEST = """
def test_text(golden):
    golden("sum", "a = 1\\nb = {value}")
"""


@pytest.fixture(autouse=True)
def conftest(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text())


def run(pytester: pytest.Pytester, value: int, *options: str) -> pytest.RunResult:
    pytester.makepyfile(test_golden=GOLDEN_TEST.format(value=value))
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)


def test_refreshed_text_passes(pytester: pytest.Pytester) -> None:
    run(pytester, 2, "--refresh-golden").assert_outcomes(passed=1)
    assert (pytester.path / "golden" / "sum.txt").read_text() == "a = 1\nb = 2\n"
    run(pytester, 2).assert_outcomes(passed=1)


def test_failure_shows_the_difference_and_names_the_flag(pytester: pytest.Pytester) -> None:
    run(pytester, 2, "--refresh-golden")
    result = run(pytester, 3)
    result.assert_outcomes(failed=1)
    cure = "to accept it: pytest 'test_golden.py::test_text' --refresh-golden"
    result.stdout.fnmatch_lines(["*golden/sum.txt*", "-b = 2", "+b = 3", cure])


def test_missing_text_fails(pytester: pytest.Pytester) -> None:
    run(pytester, 2).assert_outcomes(failed=1)


def test_unknown_processor_feature_skips_with_the_reason(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmarkers = isa")
    pytester.makepyfile(
        "import pytest\n@pytest.mark.isa('avx1024')\ndef test_it():\n    assert False\n"
    )
    result = pytester.runpytest_inprocess("-rs", "-p", "no:cacheprovider")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*this processor has no avx1024*"])
