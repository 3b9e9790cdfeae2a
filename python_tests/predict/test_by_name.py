"""The names by which unfinished tables know what was chosen."""

import functools
import math

from jaa_ext.predict.by_name import attribute_of, is_attribute, name_of


class Named:
    identity = "version 2"


class Plain:
    pass


def test_names():
    assert name_of(Named()) == name_of(Named(), "module:Named") == "version 2"
    assert name_of(Plain(), "module:Plain") == "module:Plain"
    assert name_of(Plain(), "dlib") == name_of(Plain()) == f"{__name__}.Plain"
    assert name_of(math.hypot) == "math.hypot"
    assert name_of(functools.partial(math.hypot, 3)) == "functools.partial"
    partial = functools.partial(math.hypot, 3)
    partial.identity = "with 3"
    assert name_of(partial) == "with 3"


def test_attributes():
    assert attribute_of("identity", "math:hypot") is math.hypot
    assert is_attribute("a.b:c") and not is_attribute("a.b") and not is_attribute("a:b.c")
