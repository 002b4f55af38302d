"""Clusters of claims are named in words that a reader knows."""

from __future__ import annotations

import random

from nla_audit.text.clusters import cluster_claims

#: Words that go together; "e.g." and the inflections are there to trip the naming.
_SUBJECTS = (
    ("mountain", "mountain", "mountains", "hospital", "hospital", "hospital's", "e.g."),
    ("economies", "economies", "economy", "companies", "companies", "company", "e.g."),
    ("narrative", "narrative", "narratives", "momentum", "building", "building", "builds"),
    ("quotes", "quotes", "quoted", "tokens", "tokens", "token", "i.e."),
)
_NAMES = (
    {"mountain", "hospital"},
    {"economies", "companies"},
    {"narrative", "momentum", "building"},
    {"quotes", "tokens"},
)


def _claims() -> list[str]:
    generator = random.Random(1)
    return [" ".join(generator.sample(words, 5)) for words in _SUBJECTS for _ in range(40)]


def test_names_are_whole_words_in_the_form_used_most() -> None:
    found = cluster_claims(_claims(), seed=0)
    assert found is not None
    assert len(found.names) >= len(_SUBJECTS)
    seen = [frozenset(name.split(", ")) for name in found.names]
    assert all(any(name <= known for known in _NAMES) for name in seen), found.names
    assert set().union(*seen) == set().union(*_NAMES)
