"""People and views of rendered faces."""

import numpy as np

from jaa_ext.data.rendered.expression import Expression
from jaa_ext.data.rendered.person import Person, View
from jaa_ext.data.rendered.render import render_face

REST = Expression.of({})


def test_people_and_views_are_drawn_from_the_seed_alone():
    def drawn():
        rng = np.random.default_rng(5)
        person = Person.random(rng)
        return render_face(person, REST, View.random(rng, person), 64)[0]

    np.testing.assert_array_equal(drawn(), drawn())


def test_every_look_can_be_drawn():
    """A hundred people and views, small: hats, scarves, beards, hands and the like are all among them."""
    worn = set()
    for seed in range(100):
        rng = np.random.default_rng(seed)
        person = Person.random(rng)
        view = View.random(rng, person)
        image, landmarks, _ = render_face(person, REST, view, 48)
        assert image.std() > 5 and np.isfinite(landmarks).all()
        fields = {**person.looks, **view.surroundings}
        worn |= {name for name, value in fields.items() if isinstance(value, bool | list) and value}
    assert {"glasses", "hat", "long_hair", "curtain_is_cloth", "rods", "lights"} <= worn
