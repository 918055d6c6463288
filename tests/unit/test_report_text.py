"""Names of strangers as they are shown."""

from __future__ import annotations

from ltstore.report.text import points, shown


def test_long_names_keep_both_ends() -> None:
    assert shown("Genus species var. 123456", 14) == "Genus spe…3456"
    assert len(shown("x" * 500)) == 60
    assert shown("short", 5) == "short"


def test_marks_that_turn_the_direction_are_replaced_and_letters_are_not() -> None:
    assert shown("a\u202eb\u2066c\u2069") == "a\ufffdb\ufffdc\ufffd"
    family = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}"
    assert shown(f"אבג {family}") == f"אבג {family}"


def test_differences_have_their_sign() -> None:
    assert [points(x) for x in (0.0123, -0.5)] == ["+1.2", "\N{MINUS SIGN}50.0"]
