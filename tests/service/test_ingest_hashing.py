"""Hashes of ids, and the table of ids that wait in the buffer."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa

from service.ingest.hashing import hash_ids, hash_key
from service.ingest.seen import NEW, OTHER, SAME, Seen

TEXTS = ["a" * length for length in range(1, 40)] + ["é", "日本", "loan-000017"]


def test_hashes_are_those_of_cpython_which_uses_siphash13_with_a_key_of_zeros() -> None:
    script = f"import sys; assert sys.hash_info.algorithm == 'siphash13'; print([hash(t.encode()) for t in {TEXTS!r}])"
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    said = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    expected = [int(part) for part in said.stdout.strip("[]\n").split(",")]
    assert hash_ids(pa.array(TEXTS), (0, 0)).view(np.int64).tolist() == expected


def test_hashes_do_not_depend_on_how_texts_are_stored() -> None:
    texts = pa.array(["b", "a", None, "b", ""])
    wanted = hash_ids(texts, (1, 2)).tolist()
    assert hash_ids(texts.cast(pa.large_string()), (1, 2)).tolist() == wanted
    assert hash_ids(texts.dictionary_encode(), (1, 2)).tolist() == wanted
    assert hash_ids(pa.chunked_array([texts[:2], texts[2:]]), (1, 2)).tolist() == wanted
    assert hash_ids(texts[1:], (1, 2)).tolist() == wanted[1:]
    assert wanted[0] == wanted[3] != wanted[1]


def test_keys_differ_between_secrets() -> None:
    assert hash_key(b"one") != hash_key(b"two")
    assert hash_ids(pa.array(["a"]), hash_key(b"one")) != hash_ids(pa.array(["a"]), hash_key(b"two"))


def test_what_was_seen_is_known_per_version_with_its_value() -> None:
    seen = Seen(2)
    hashes = np.array([5, 6, 5, 5 + 2**40], np.uint64)
    values = np.array([1, 1, 2, 1], np.uint64)
    assert seen.add(hashes, 1, values).tolist() == [NEW, NEW, OTHER, NEW]
    assert seen.add(hashes[:1], 1, np.array([2], np.uint64)).tolist() == [SAME]
    assert seen.add(hashes[:1], 2, values[:1]).tolist() == [NEW]
    assert seen.known(np.array([5, 7], np.uint64)).tolist() == [True, False]
    assert seen.known(np.array([5, 6], np.uint64), 2).tolist() == [True, False]


def test_the_table_grows_and_agrees_with_a_dictionary() -> None:
    rng = np.random.default_rng(3)
    seen, known = Seen(2), {}
    for _ in range(50):
        version = int(rng.integers(0, 3))
        hashes = rng.integers(0, 500, 40).astype(np.uint64) * np.uint64(2**50)
        for value, found in zip(hashes.tolist(), seen.add(hashes, version).tolist(), strict=True):
            assert found == (SAME if (value, version) in known else NEW)
            known[value, version] = True
    assert seen.count == len(known)
