"""Braces, wildcards and directories of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltstore.errors import ConfigError, SourceError, SourceNotFoundError
from ltstore.sources.patterns import expand_braces, expand_files, short_names


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{008..011}.tar", ["008.tar", "009.tar", "010.tar", "011.tar"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}/{0..1}", ["a/0", "a/1", "b/0", "b/1"]),
        ("x{,y}", ["x", "xy"]),
        ("plain", ["plain"]),
        ("{one}{}", ["{one}{}"]),  # as the shell leaves them
    ],
)
def test_braces(pattern: str, names: list[str]) -> None:
    assert list(expand_braces(pattern)) == names


@pytest.mark.parametrize("pattern", ["{0..999999999999}", "{0..9999}{0..9999}"])
def test_patterns_without_end_are_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="stands for more than 1,000,000 names"):
        expand_braces(pattern)


def test_files(tmp_path: Path) -> None:
    for name in ("b.tar", "a.TAR", "10.tar", ".hidden.tar", "a.parquet", "c/b.tar", "{x}.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(spec: str) -> list[str]:
        return [str(file.relative_to(tmp_path)) for file in expand_files(tmp_path / spec, (".tar",))]

    assert names(".") == ["10.tar", "a.TAR", "b.tar", "{x}.tar"]
    assert names("[ab]*") == ["a.TAR", "a.parquet", "b.tar"]
    assert names("{b,c/*}.tar") == ["b.tar", "c/b.tar"]
    assert names("{x}.tar") == ["{x}.tar"]
    assert short_names([Path("/d/b.tar"), Path("/d/c/b.tar")]) == ["b.tar", "c/b.tar"]
    assert short_names([Path("/d/b.tar")]) == ["b.tar"]
    with pytest.raises(SourceNotFoundError, match=r"no file 2 of the 3 of .*\{0..2\}0.tar: .*/00.tar, \.\.\.$"):
        names("{0..2}0.tar")
    with pytest.raises(SourceNotFoundError, match=r"no file .*/z\*.tar$"):
        names("z*.tar")
    with pytest.raises(SourceNotFoundError, match="no file or directory"):
        names("absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"empty holds no file that ends in \.tar"):
        names("empty")
