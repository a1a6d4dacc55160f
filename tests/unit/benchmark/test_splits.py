"""The log of the times that test images were opened."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from anomalib_memd.benchmark.splits import HEADING, git, log_opening


def rows(path):
    return [line for line in path.read_text().splitlines() if line.startswith("| 2")]


def test_the_log_is_made_and_grows_line_by_line(tmp_path):
    path = tmp_path / "docs" / "benchmark.md"
    log_opening(path, ["colon", "bleeding"], "first")
    log_opening(path, ["colon"], "second |\nand last")
    first, second = rows(path)
    assert "| colon, bleeding |" in first
    assert first.endswith("| first |")
    assert second.endswith("| second / and last |")
    assert path.read_text().count(HEADING) == 1


def test_runs_that_start_together_lose_no_line(tmp_path):
    path = tmp_path / "log.md"
    reasons = [f"run {number}" for number in range(16)]
    with ThreadPoolExecutor(len(reasons)) as pool:
        list(pool.map(lambda reason: log_opening(path, ["colon"], reason), reasons))
    assert sorted(row.split(" | ")[-1].removesuffix(" |") for row in rows(path)) == sorted(reasons)


def test_what_stands_in_the_page_stays(tmp_path):
    path = tmp_path / "page.md"
    before = (
        f"# Page\n\n| a |\n\n{HEADING}\n\nWhy.\n\n| date | x |\n| --- | --- |\n| 2025 | old |\n\n## After\n\nText.\n"
    )
    path.write_text(before)
    log_opening(path, ["colon"], "new")
    after = path.read_text()
    (line,) = set(after.splitlines()) - set(before.splitlines())
    assert after.replace(line + "\n", "") == before
    assert after.index("| 2025 | old |") < after.index(line) < after.index("## After")


def test_an_opening_without_reason_is_refused(tmp_path):
    with pytest.raises(ValueError, match="opened for a reason"):
        log_opening(tmp_path / "page.md", ["colon"], "  ")
    assert not list(tmp_path.iterdir())


def test_the_commit_stands_in_it_and_whether_other_files_differ_from_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log, code = tmp_path / "log.md", tmp_path / "code.py"
    code.touch()
    log_opening(log, ["colon"], "outside a repository")
    git("init")
    git("add", "log.md", "code.py")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "x")
    log_opening(log, ["colon"], "clean")
    log_opening(log, ["colon"], "the log alone has changed")
    code.write_text("changed = True\n")
    log_opening(log, ["colon"], "changed")
    outside, clean, logged, changed = rows(log)
    commit = git("rev-parse", "--short", "HEAD")
    assert "| anomalib-memd " in outside
    assert f"| {commit} |" in clean
    assert f"| {commit} |" in logged
    assert f"| {commit}, with changes |" in changed
