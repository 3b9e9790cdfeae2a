"""Options that several commands take, and mistakes in them."""

import pytest

from jaa_ext.cli.options import names_options


@names_options
def command(text: str, focal_length: float = 1.0) -> None:
    """Fail with a text."""
    raise ValueError(text)


@pytest.mark.parametrize(
    "text, said",
    [
        ("focal_length must be above 0, got 0", "--focal-length must be above 0, got 0"),
        ('focal_length "x" wants more', '--focal-length "x" wants more'),
        ("focal_length: no", "focal_length: no"),  # as of a file of that name
        ("text of mine.mp4: no", "text of mine.mp4: no"),
        ("the focal_length is 0", "the focal_length is 0"),
        ("search_every must be a number", "search_every must be a number"),  # not of this command
        ("", ""),
    ],
)
def test_a_mistake_in_an_argument_names_its_option(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        command(text)
    assert str(error.value) == said


def test_the_command_stays_what_it_was() -> None:
    assert command.__doc__ == "Fail with a text." and command.__name__ == "command"
