"""IMDB in quick mode, and the words of reviews held to Keras' own tokenizer and data set."""

from pathlib import Path

import numpy as np
import pytest

from stand_ins import write_archive, write_reviews


def test_quick_mode_goes_from_texts_to_a_verdict(tmp_path, run_example):
    write_reviews(tmp_path)
    result = run_example("imdb", "--data", tmp_path, backend="jax")
    assert [(a["format"], a["scheme"]) for a in result["artifacts"]] == [
        ("tflite", "float32"),
        ("onnx", "float32"),
        ("tflite", "int8"),
        ("onnx", "int8"),
    ]
    assert result["failures"] == []
    assert result["keras"]["samples"] == 40
    for item in result["artifacts"][:2]:
        assert item["stages"]["numbers"] == item["stages"]["attention"] == "pass"
        assert item["score"] == result["keras"]["score"]
        assert item["attention"]["max_abs_error"] <= 1e-5
    assert result["command"] == "python examples/imdb.py --quick --data PATH"
    assert result["figures"]["attention"]["runs"] == result["figures"]["plain"]["runs"] == 1
    assert (tmp_path / "made" / "report.html").stat().st_size > 0


@pytest.mark.usefixtures("modules")
def test_words_are_numbered_as_kerass_tokenizer_and_data_set_do():
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
    # keras.datasets.imdb.load_data(num_words=12): start 1, unknown 2, words from 4.
    expected = [
        [1, *(w + 3 if w + 3 < 12 else 2 for w in row)]
        for row in tokenizer.texts_to_sequences(test)
    ]
    ranks = reviews.rank([reviews.tokens(text) for text in train])
    assert ranks == tokenizer.word_index
    found = reviews.pad([reviews.numbered(reviews.tokens(t), ranks) for t in test], 12, 20)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, keras.utils.pad_sequences(expected, maxlen=20))


@pytest.mark.usefixtures("modules")
def test_the_authors_archive_is_read_where_it_lies(tmp_path, monkeypatch):
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
    monkeypatch.setattr(reviews, "ARCHIVE", reviews.Remote("https://nowhere.invalid/a", sha256))
    data, ranks = reviews.reviews(tmp_path, 50, 4)
    # Reviews are taken in the order of their names, and so film is met before good.
    assert ranks == {"film": 1, "good": 2, "bad": 3}
    np.testing.assert_array_equal(data.x, [[0, 1, 6, 4], [1, 5, 5, 4]])
    np.testing.assert_array_equal(data.y, [0, 1])
    np.testing.assert_array_equal(data.x_test, [[0, 1, 6, 5]])


@pytest.mark.usefixtures("modules")
def test_pickled_arrays_of_another_file_are_never_read(tmp_path):
    import click

    import reviews

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    np.savez(tmp_path / "imdb.npz", x_train=np.array([Trap()], dtype=object))
    with pytest.raises(click.ClickException, match="SHA-256"):
        reviews.reviews(tmp_path, 50, 4)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.usefixtures("modules")
def test_kerass_own_file_is_numbered_as_keras_does(tmp_path, monkeypatch):
    import hashlib

    import reviews

    rows = np.empty(2, dtype=object)
    rows[:] = [[1, 2, 9], [46, 47]]
    path = tmp_path / "imdb.npz"
    np.savez(path, x_train=rows, y_train=[0, 1], x_test=rows, y_test=[1, 0])
    monkeypatch.setattr(reviews, "KERAS_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    data, _ = reviews.reviews(path, 50, 4)
    np.testing.assert_array_equal(data.x, [[1, 4, 5, 12], [0, 1, 49, 2]])
    np.testing.assert_array_equal(data.y_test, [1, 0])


@pytest.mark.usefixtures("modules")
def test_real_reviews_have_the_words_of_kerass_index(real):
    import reviews

    texts, labels = reviews.read_lines(real / "imdb" / "train.jsonl.gz")
    assert len(texts) == 25_000
    assert labels.sum() == 12_500
    ranks = reviews.rank([reviews.tokens(text) for text in texts])
    # The head of Keras' imdb_word_index.json, of 88,584 words.
    assert list(ranks)[:10] == ["the", "and", "a", "of", "to", "is", "br", "in", "it", "i"]
    assert abs(len(ranks) - 88_584) < 10


@pytest.mark.usefixtures("modules")
def test_both_models_have_as_many_parameters():
    import imdb

    counts = {kind: imdb.build(kind).count_params() for kind in imdb.KINDS}
    # Embedding 5,000 x 32, LSTM 4 (32 + 100 + 1) 100; then 100 x 100 + 200 x 128 and 129,
    # or 101 x 350 and 351.
    assert counts == {
        "attention": 160_000 + 53_200 + 35_600 + 129,
        "plain": 160_000 + 53_200 + 35_350 + 351,
    }
