import errno
import math
import os

import pytest

from mbrl.plain import json_text, shown, words


def test_json_has_no_nan_and_no_infinity():
    assert json_text({"a": [math.nan, (math.inf, 1.5)], "b": True}) == (
        '{"a": [null, [null, 1.5]], "b": true}'
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("μ · → é 日本 'a b'", "μ · → é 日本 'a b'"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("two\nlines\r\tx", r"two\nlines\r\tx"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202eb\u2028c\u200b", r"a\u202eb\u2028c\u200b"),
        ("\udc80", r"\udc80"),
        (["\x1b"], r"['\x1b']"),
    ],
)
def test_only_characters_that_do_not_print_are_escaped(text, wanted):
    assert shown(text) == wanted and shown(text).isprintable()


def test_long_text_is_shortened():
    assert shown("x" * 100, most=5) == "xxxxx..." and shown("x" * 5, most=5) == "xxxxx"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission is denied"),
        (9999, "the system refuses it (error 9999)"),
        (None, "the system refuses it (error None)"),
    ],
)
def test_error_numbers_are_explained_in_words(code, said):
    assert words(code) == said
    if code in errno.errorcode:
        assert os.strerror(code) not in said
