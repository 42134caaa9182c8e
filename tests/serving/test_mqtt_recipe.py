"""The recipe for MQTT of ``docs/serve.md``, with a stand-in for paho's client."""

import json
import re
import subprocess
import sys
from pathlib import Path

from artifacts import write_dense_bundle
from front_ends import WINDOWS, add_front_end, expected

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"
# As paho-mqtt 2: an exception of a callback ends the loop.
PAHO = """
import enum, types

class CallbackAPIVersion(enum.Enum):
    VERSION2 = 2

class Client:
    def __init__(self, version):
        assert version is CallbackAPIVersion.VERSION2

    def connect(self, host):
        self.topics = []

    def subscribe(self, topic):
        self.topics.append(topic)

    def publish(self, topic, payload):
        print(topic, payload)

    def loop_forever(self):
        self.on_connect(self, None, {}, 0, None)
        assert self.topics == ["sensor"]
        for payload in (b"[1, 2, -3]", b"[1, 2]", b"not JSON", b"[4, 5, 6]"):
            message = types.SimpleNamespace(topic="sensor", payload=payload)
            self.on_message(self, None, message)
"""


def test_the_recipe_answers_and_outlives_malformed_messages(tmp_path):
    bundle = write_dense_bundle(tmp_path / "model.edge", formats=("onnx",))
    add_front_end(bundle, WINDOWS)
    package = tmp_path / "paho" / "mqtt"
    package.mkdir(parents=True)
    (package / "client.py").write_text(PAHO)
    (recipe,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.S | re.M)
    process = subprocess.run(
        [sys.executable, "-c", recipe], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    answers = [line.split(" ", 1) for line in process.stdout.splitlines()]
    assert [(topic, json.loads(text)) for topic, text in answers] == [
        ("answer", expected([1, 2, -3])),
        ("answer", expected([4, 5, 6])),
    ]
    first, second = process.stderr.splitlines()
    assert first.startswith("no answer: A window has 3 readings; received 2.")
    assert second.startswith("no answer: Expecting value")
