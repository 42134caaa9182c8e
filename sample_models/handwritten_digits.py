"""The handwritten digits of scikit-learn, for the sample models that classify them."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def handwritten_digits(seed: int) -> list[np.ndarray]:
    """Training and test images, ``(count, 8, 8)`` from 0 to 1, then their labels, ``(count,)``."""
    data = load_digits()
    x = (data.images / 16).astype("float32")
    return train_test_split(x, data.target, test_size=360, random_state=seed, stratify=data.target)
