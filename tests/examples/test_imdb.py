"""IMDB with ``--quick``, and word ids compared with the tokenizer and data set of Keras."""

from pathlib import Path

import numpy as np
import pytest

from example_results import read_result
from fake_data import write_archive, write_reviews

pytestmark = pytest.mark.long


def test_reviews_on_jax_from_data_to_report(tmp_path, run_example):
    write_reviews(tmp_path)
    result = read_result(run_example("imdb", "--data", tmp_path, backend="jax"), samples=40)
    assert result["backend"] == "jax"
    assert result["command"] == "python examples/imdb.py --quick --data PATH"
    assert result["figures"]["attention"]["runs"] == result["figures"]["plain"]["runs"] == 1


@pytest.mark.usefixtures("modules")
def test_word_ids_equal_those_of_keras():
    import keras
    from keras.src.legacy.preprocessing.text import Tokenizer

    import reviews

    train = [
        "This film is bad. Bad, bad! <br /><br />It's a film (of 1999); don't SEE it...",
        "A good film\twith a good end \x85 really\xa0good, isn't it? It is: 'good'.",
        "of of of a see",
    ]
    test = ["A bad end, unheard of: don't see a good unseen film " * 3, ""]
    tokenizer = Tokenizer()
    tokenizer.fit_on_texts(train)
    # As keras.datasets.imdb.load_data(num_words=12): start 1, unknown 2, words from 4.
    expected = [
        [1, *(w + 3 if w + 3 < 12 else 2 for w in row)]
        for row in tokenizer.texts_to_sequences(test)
    ]
    ranks = reviews.rank([reviews.tokenize(text) for text in train])
    assert ranks == tokenizer.word_index
    ids = reviews.pad([reviews.word_ranks(reviews.tokenize(t), ranks) for t in test], 12, 20)
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, keras.utils.pad_sequences(expected, maxlen=20))


@pytest.mark.usefixtures("modules")
def test_the_archive_of_the_authors_is_read_without_unpacking(tmp_path, monkeypatch):
    import hashlib

    import reviews

    path = tmp_path / "aclImdb_v1.tar.gz"
    write_archive(
        path,
        {
            "aclImdb/train/pos/1_9.txt": "good good film",
            "aclImdb/train/neg/0_2.txt": "bad film",
            "aclImdb/train/unsup/2_0.txt": "neither",
            "aclImdb/test/neg/5_1.txt": "bad good",
            "aclImdb/README": "about",
        },
    )
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(reviews, "ARCHIVE", reviews.RemoteFile("https://nowhere.invalid/a", sha256))
    data, ranks = reviews.load_reviews(tmp_path, 50, 4)
    # Reviews are sorted by name, so "film" occurs before "good".
    assert ranks == {"film": 1, "good": 2, "bad": 3}
    np.testing.assert_array_equal(data.x, [[0, 1, 6, 4], [1, 5, 5, 4]])
    np.testing.assert_array_equal(data.y, [0, 1])
    np.testing.assert_array_equal(data.x_test, [[0, 1, 6, 5]])


@pytest.mark.usefixtures("modules")
def test_pickled_arrays_of_an_unknown_file_are_not_read(tmp_path):
    import click

    import reviews

    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    np.savez(tmp_path / "imdb.npz", x_train=np.array([Payload()], dtype=object))
    with pytest.raises(click.ClickException, match="SHA-256"):
        reviews.load_reviews(tmp_path, 50, 4)
    assert not (tmp_path / "executed").exists()


@pytest.mark.usefixtures("modules")
def test_word_ids_of_the_keras_file_equal_those_of_keras(tmp_path, monkeypatch):
    import hashlib

    import reviews

    rows = np.empty(2, dtype=object)
    rows[:] = [[1, 2, 9], [46, 47]]
    path = tmp_path / "imdb.npz"
    np.savez(path, x_train=rows, y_train=[0, 1], x_test=rows, y_test=[1, 0])
    monkeypatch.setattr(reviews, "KERAS_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    data, _ = reviews.load_reviews(path, 50, 4)
    np.testing.assert_array_equal(data.x, [[1, 4, 5, 12], [0, 1, 49, 2]])
    np.testing.assert_array_equal(data.y_test, [1, 0])


@pytest.mark.usefixtures("modules")
def test_the_most_frequent_words_equal_those_of_keras(real):
    import reviews

    texts, labels = reviews.read_lines(real / "imdb" / "train.jsonl.gz")
    assert len(texts) == 25_000
    assert labels.sum() == 12_500
    ranks = reviews.rank([reviews.tokenize(text) for text in texts])
    # The first of the 88,584 words in imdb_word_index.json of Keras.
    assert list(ranks)[:10] == ["the", "and", "a", "of", "to", "is", "br", "in", "it", "i"]
    assert abs(len(ranks) - 88_584) < 10


@pytest.mark.usefixtures("modules")
def test_both_models_have_the_same_number_of_parameters():
    import imdb

    counts = {kind: imdb.build(kind).count_params() for kind in imdb.KINDS}
    # Embedding 5,000 x 32, LSTM 4 (32 + 100 + 1) 100; then 100 x 100 + 200 x 128 and 129,
    # or 101 x 350 and 351.
    assert counts == {
        "attention": 160_000 + 53_200 + 35_600 + 129,
        "plain": 160_000 + 53_200 + 35_350 + 351,
    }
