"""The loaders of sensor data, on random and on real files."""

import functools
import hashlib

import numpy as np
import pytest

from fake_data import write_gestures, write_har_archive, write_har_subset

pytestmark = pytest.mark.usefixtures("modules")


def test_the_activity_archive_has_nine_signals_in_order(tmp_path):
    import public_data

    rng = np.random.default_rng(0)
    signals = {
        f"{name}_{axis}": rng.normal(size=(3, 128)).astype("float32")
        for name in ("total_acc", "body_gyro", "body_acc")
        for axis in "zyx"
    }
    write_har_archive(tmp_path / "human activity.zip", signals, np.array([6, 1, 3]))
    data = public_data.activity(tmp_path)
    assert data.x.dtype == np.float32
    np.testing.assert_array_equal(data.y, [5, 0, 2])
    for column, name in enumerate(public_data.HAR_SIGNALS):
        np.testing.assert_allclose(data.x_test[:, :, column], signals[name], rtol=1e-6)
    # As in the subset: only the total acceleration includes gravity.
    assert public_data.HAR_SIGNALS[6] == "total_acc_x"


def test_labels_of_the_activity_subset_start_at_zero(tmp_path):
    import public_data

    write_har_subset(tmp_path / "uci_har_subset.npz")
    data = public_data.activity(tmp_path)
    assert data.x.shape == (48, 128, 9)
    assert (data.y.min(), data.y.max()) == (0, 5)


def test_training_and_test_gestures_share_no_position(tmp_path):
    import public_data

    write_gestures(tmp_path / "point_history.csv", frames=120)
    data = public_data.gestures(tmp_path)
    # 120 rows for each movement: 90 - 16 for training and 30 for the test.
    np.testing.assert_array_equal(np.bincount(data.y), [74] * 4)
    np.testing.assert_array_equal(np.bincount(data.y_test), [30] * 4)
    training = {frame.tobytes() for frame in data.x.reshape(-1, 2)}
    assert not any(frame.tobytes() in training for frame in data.x_test.reshape(-1, 2))


def test_short_series_are_padded_at_the_end(tmp_path):
    import public_data

    path = tmp_path / "JapaneseVowels_TRAIN.ts"
    path.write_text("# about\n@equalLength false\n@data\n1,2,3:-1,-2,-3:4\n0.5,7:8,9:1\n")
    x, y = public_data.read_ts(path, steps=4)
    np.testing.assert_array_equal(
        x, [[[1, -1], [2, -2], [3, -3], [0, 0]], [[0.5, 8], [7, 9], [0, 0], [0, 0]]]
    )
    np.testing.assert_array_equal(y, [3, 0])


@pytest.mark.parametrize("name", ["activity", "gestures", "vowels"])
def test_an_empty_folder_is_an_error(tmp_path, name):
    import click

    import public_data

    with pytest.raises(click.ClickException, match="has none of the expected files"):
        getattr(public_data, name)(tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("gestures", "point_history.csv", b"a,b\n1,2\n"),
        ("gestures", "point_history.csv", b"1,2\n1,2\n"),
        ("gestures", "point_history.csv", b""),
        ("activity", "uci_har_subset.npz", b"PK\3\4 and no more"),
        ("activity", "UCI HAR Dataset.zip", b"no zip"),
        ("vowels", "JapaneseVowels_TRAIN.ts", b"@data\n1,2:x\n"),
        ("vowels", "JapaneseVowels_TRAIN.ts", b"\xff\xfe"),
    ],
)
def test_a_broken_file_is_an_error(tmp_path, name, file, content):
    import click

    import public_data

    (tmp_path / file).write_bytes(content)
    with pytest.raises(click.ClickException):
        getattr(public_data, name)(tmp_path)


def test_a_download_with_another_checksum_is_an_error(tmp_path, monkeypatch):
    import click
    import keras

    import public_data

    source = tmp_path / "source" / "data.csv"
    source.parent.mkdir()
    source.write_text("1,2,3\n")
    cached = functools.partial(keras.utils.get_file, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(keras.utils, "get_file", cached)
    checksum = hashlib.sha256(source.read_bytes()).hexdigest()
    path = public_data.fetch(public_data.RemoteFile(source.as_uri(), checksum))
    assert path.read_text() == "1,2,3\n"
    with pytest.raises(click.ClickException, match="Pass a local copy: --data PATH"):
        public_data.fetch(public_data.RemoteFile(source.as_uri(), 64 * "0"))


def test_real_files_have_the_published_sizes(real):
    import public_data

    data = public_data.activity(real)
    assert (data.x.shape, data.x_test.shape) == ((2400, 128, 9), (950, 128, 9))
    data = public_data.vowels(real)
    assert (data.x.shape, data.x_test.shape) == ((270, 29, 12), (370, 29, 12))
    np.testing.assert_array_equal(np.bincount(data.y_test), [31, 35, 88, 44, 29, 24, 40, 50, 29])
    data = public_data.gestures(real)
    assert data.x.shape[1:] == (16, 2)


def test_real_files_have_the_recorded_checksums(real):
    import public_data

    public_data.check(real / "hand_gesture" / "point_history.csv", public_data.GESTURES.sha256)
    for part, remote in public_data.VOWELS.items():
        path = real / "sktime_JapaneseVowels" / f"JapaneseVowels_{part}.ts"
        public_data.check(path, remote.sha256)
