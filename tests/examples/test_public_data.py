"""The loaders of sensor data, on made-up files in their formats and on the real ones."""

import functools
import hashlib

import numpy as np
import pytest

from stand_ins import write_gestures, write_har_archive, write_har_subset

pytestmark = pytest.mark.usefixtures("modules")


def test_activitys_archive_gives_the_nine_signals_in_order(tmp_path):
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
    # As the subset has them: only the total acceleration has gravity in it.
    assert public_data.HAR_SIGNALS[6] == "total_acc_x"


def test_activitys_subset_has_labels_from_zero(tmp_path):
    import public_data

    write_har_subset(tmp_path / "uci_har_subset.npz")
    data = public_data.activity(tmp_path)
    assert data.x.shape == (48, 128, 9)
    assert (data.y.min(), data.y.max()) == (0, 5)


def test_gestures_of_the_test_share_no_frame_with_those_trained_on(tmp_path):
    import public_data

    write_gestures(tmp_path / "point_history.csv", frames=120)
    data = public_data.gestures(tmp_path)
    # 120 rows a movement: 90 - 16 to train on and 30 to test on.
    np.testing.assert_array_equal(np.bincount(data.y), [74] * 4)
    np.testing.assert_array_equal(np.bincount(data.y_test), [30] * 4)
    trained = {frame.tobytes() for frame in data.x.reshape(-1, 2)}
    assert not any(frame.tobytes() in trained for frame in data.x_test.reshape(-1, 2))


def test_unequal_lengths_are_padded_behind_their_end(tmp_path):
    import public_data

    path = tmp_path / "JapaneseVowels_TRAIN.ts"
    path.write_text("# about\n@equalLength false\n@data\n1,2,3:-1,-2,-3:4\n0.5,7:8,9:1\n")
    x, y = public_data.read_ts(path, steps=4)
    np.testing.assert_array_equal(
        x, [[[1, -1], [2, -2], [3, -3], [0, 0]], [[0.5, 8], [7, 9], [0, 0], [0, 0]]]
    )
    np.testing.assert_array_equal(y, [3, 0])


@pytest.mark.parametrize("name", ["activity", "gestures", "vowels"])
def test_an_empty_folder_is_told_what_was_expected(tmp_path, name):
    import click

    import public_data

    with pytest.raises(click.ClickException, match="Expected in --data"):
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
def test_a_broken_file_is_told_of(tmp_path, name, file, content):
    import click

    import public_data

    (tmp_path / file).write_bytes(content)
    with pytest.raises(click.ClickException):
        getattr(public_data, name)(tmp_path)


def test_a_download_is_used_only_when_it_is_the_file_that_we_know(tmp_path, monkeypatch):
    import click
    import keras

    import public_data

    there = tmp_path / "there" / "data.csv"
    there.parent.mkdir()
    there.write_text("1,2,3\n")
    cached = functools.partial(keras.utils.get_file, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(keras.utils, "get_file", cached)
    right = hashlib.sha256(there.read_bytes()).hexdigest()
    path = public_data.fetch(public_data.Remote(there.as_uri(), right))
    assert path.read_text() == "1,2,3\n"
    with pytest.raises(click.ClickException, match="Give a local copy with --data"):
        public_data.fetch(public_data.Remote(there.as_uri(), 64 * "0"))


def test_real_files_have_the_published_sizes(real):
    import public_data

    data = public_data.activity(real)
    assert (data.x.shape, data.x_test.shape) == ((2400, 128, 9), (950, 128, 9))
    data = public_data.vowels(real)
    assert (data.x.shape, data.x_test.shape) == ((270, 29, 12), (370, 29, 12))
    np.testing.assert_array_equal(np.bincount(data.y_test), [31, 35, 88, 44, 29, 24, 40, 50, 29])
    data = public_data.gestures(real)
    assert data.x.shape[1:] == (16, 2)


def test_real_files_are_those_of_the_official_addresses(real):
    import public_data

    public_data.check(real / "hand_gesture" / "point_history.csv", public_data.GESTURES.sha256)
    for part, remote in public_data.VOWELS.items():
        path = real / "sktime_JapaneseVowels" / f"JapaneseVowels_{part}.ts"
        public_data.check(path, remote.sha256)
