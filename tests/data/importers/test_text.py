from __future__ import annotations

import numpy as np

from metammf.data.importers.text import bag_of_words


def documents(count=400, seed=0):
    """Documents of ten topics of six words each."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(10, size=count)
    words = [[f"topic{topic}word{word}" for word in rng.integers(6, size=4)] for topic in topics]
    return topics, words


def test_documents_of_a_topic_are_alike():
    topics, words = documents()
    rows, present = bag_of_words(words, width=10)
    assert rows.shape == (400, 10)
    assert rows.dtype == np.float32
    assert present.all()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    cosines = rows @ rows.T
    same = topics[:, None] == topics[None, :]
    assert cosines[same].mean() > 0.95
    assert abs(cosines[~same]).max() < 0.05


def test_all_dimensions_keep_all_cosines():
    _, words = documents(40)
    rows, _ = bag_of_words(words, width=128)
    exact, _ = bag_of_words(words[::-1], width=128)
    np.testing.assert_allclose(rows @ rows.T, (exact @ exact.T)[::-1, ::-1], atol=1e-5)


def test_it_depends_on_the_words_alone():
    _, words = documents()
    first, again = bag_of_words(words)[0], bag_of_words(words)[0]
    np.testing.assert_array_equal(first, again)
    shuffled = [sorted(document, reverse=True) for document in words]
    np.testing.assert_array_equal(first, bag_of_words(shuffled)[0])


def test_what_has_no_shared_word_is_absent():
    rows, present = bag_of_words([["a", "b"], ["a", "c"], ["d"], []])
    assert present.tolist() == [True, True, False, False]
    assert not rows[2:].any()
    rows, present = bag_of_words([["a"], ["b"]])
    assert rows.shape == (2, 1)
    assert not present.any()
