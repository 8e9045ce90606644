"""Numbers and records as people read them."""

from __future__ import annotations

from edgewise.numbers import told_proof


def test_what_was_read_back_is_told_in_short() -> None:
    proof = {
        "read_from": "a listing",
        "products": {"int8": 3, "float16": 1},
        "not_as_asked": [{"node": "a", "found": "float16"}],
        "format_changes": [str(index) for index in range(9)],
        "sparse": {"asked": True, "layers": []},
        "nothing": [],
    }
    assert told_proof(proof) == [
        ("read from", "a listing"),
        ("products", "int8 3, float16 1"),
        ("not as asked", "node a, found float16"),
        ("format changes", "0; 1; 2; 3; 4; 5; and 3 more"),
        ("sparse", "asked yes"),
    ]
