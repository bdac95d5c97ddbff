"""Names on a screen: on one line, not too long, and told apart."""

from __future__ import annotations

from headstart.core.text import all_shortened, shortened

SPIDER = "Tomato___Spider_mites_{}_spotted_spider_mite_with_a_very_long_name_indeed"


def test_a_long_name_loses_its_middle() -> None:
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghijk", 10) == "abcde…hijk"


def test_names_that_would_look_alike_keep_more() -> None:
    names = [SPIDER.format(each) for each in ("Two", "Three")] + ["Tomato___Late_blight_of_the_leaf", "healthy"]
    short = all_shortened(names)
    assert list(short) == names
    assert len({*short.values()}) == 4
    assert (short["healthy"], short[names[2]]) == ("healthy", "Tomato___Lat…of_the_leaf")
    assert [len(short[name]) for name in names] == [48, 48, 24, 7]
    assert "Spider_mites_Tw…" in short[names[0]]


def test_names_that_differ_in_one_sign_in_the_middle_end_whole() -> None:
    names = [f"{'a' * 60}{sign}{'b' * 60}" for sign in "xyz"]
    assert all_shortened(names) == {name: name for name in names}
    assert all_shortened([]) == {}
    assert all_shortened(["a\n", "a\\n"]) == {"a\n": "a\\n", "a\\n": "a\\n"}  # which look alike, long or short
