"""Config files: where they are found, what they set, and what is wrong with them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import click
import pytest
from artifacts import write_dense_bundle

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.config_record import ConfigRecord, stored_config, stored_in_bundles
from edgeattn.bundle.manifest import Manifest
from edgeattn.cli import config_values
from edgeattn.cli.command import Command
from edgeattn.cli.commands import COMMANDS, load_command
from edgeattn.cli.config_file import find

ONNX_ONLY = '[validate]\nformat = "onnx"\n'


@pytest.fixture
def validate(edgeattn, dense_bundle):
    """Runs ``edgeattn validate --json``; returns the result and the formats that were validated."""

    def run(*arguments: object):
        result = edgeattn("validate", dense_bundle.path, "--jobs", 1, "--json", *arguments)
        formats = [item["format"] for item in result.document.get("artifacts", ())]
        return result, formats

    return run


def test_options_of_a_command(validate, tmp_path):
    (tmp_path / "edgeattn.toml").write_text(ONNX_ONLY)
    result, formats = validate()
    assert (result.code, formats) == (0, ["onnx"])
    assert result.err == "Options from edgeattn.toml: format\n"
    assert result.document["config"] == {
        "file": "edgeattn.toml",
        "sha256": hashlib.sha256(ONNX_ONLY.encode()).hexdigest(),
        "recipe": None,
        "options": {"format": "onnx"},
    }


def test_without_a_config_file_nothing_is_recorded(validate, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "edgeattn-user"\n')
    result, formats = validate()
    assert (result.err, len(formats), "config" in result.document) == ("", 2, False)
    (tmp_path / "edgeattn.toml").write_text("[convert]\nbatch = 2\n")  # of another command
    result, formats = validate()
    assert (result.err, len(formats), "config" in result.document) == ("", 2, False)


def test_the_command_line_wins(validate, tmp_path):
    (tmp_path / "edgeattn.toml").write_text(ONNX_ONLY)
    result, formats = validate("--format", "tflite")
    assert (formats, result.err, "config" in result.document) == (["tflite"], "", False)
    result, formats = validate("--no-config")
    assert (len(formats), result.err, "config" in result.document) == (2, "", False)


def test_a_recipe_comes_before_the_options_of_all(edgeattn, validate, dense_bundle, tmp_path):
    text = ONNX_ONLY + 'jobs = 1\n[recipes.pi5.validate]\nformat = ["tflite"]\n'
    (tmp_path / "edgeattn.toml").write_text(text)
    for arguments in (["--recipe", "pi5"], ["--config", "edgeattn.toml", "--recipe", "pi5"]):
        result, formats = validate(*arguments)
        assert formats == ["tflite"]
        assert result.err == "Options from edgeattn.toml, recipe pi5: format\n"
        assert result.document["config"]["recipe"] == "pi5"
        assert result.document["config"]["options"] == {"format": ["tflite"]}
    # Before the command too.
    before = edgeattn("--recipe", "pi5", "validate", dense_bundle.path)
    assert before.err == "Options from edgeattn.toml, recipe pi5: format, jobs\n"
    unknown, _ = validate("--recipe", "pi4")
    assert unknown.code == 2
    assert "edgeattn.toml has no recipe 'pi4'. Its recipes: pi5." in unknown.err
    assert "Did you mean pi5?" in unknown.err
    other = edgeattn("bench", dense_bundle.path, "--recipe", "pi5")
    assert other.code == 2
    assert "the recipe 'pi5' has no options of bench" in other.err
    nothing, _ = validate("--recipe", "pi5", "--no-config")
    assert (nothing.code, "--no-config excludes --recipe" in nothing.err) == (2, True)


def test_quiet_omits_the_line_only_on_the_command_line(edgeattn, dense_bundle, tmp_path):
    (tmp_path / "edgeattn.toml").write_text(ONNX_ONLY)
    assert edgeattn("validate", dense_bundle.path, "--quiet").err == ""
    (tmp_path / "edgeattn.toml").write_text(ONNX_ONLY + "quiet = true\n")
    assert edgeattn("validate", dense_bundle.path).err != ""


def test_verbose_names_the_file_that_gave_nothing(edgeattn, dense_bundle, tmp_path):
    path = dense_bundle.path
    for arguments in (["inspect", path, "--verbose"], ["-v", "inspect", path]):
        assert "No config file is used." in edgeattn(*arguments).err
    (tmp_path / "edgeattn.toml").write_text(ONNX_ONLY)
    assert "Options from edgeattn.toml: none" in edgeattn("inspect", path, "-v").err


def test_a_file_that_is_named(validate, tmp_path, monkeypatch):
    (tmp_path / "edgeattn.toml").write_text('[validate]\nformat = "tflite"\n')
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "ci.toml").write_text(ONNX_ONLY + 'junit = "result.xml"\n')
    result, formats = validate("--config", "conf/ci.toml")
    assert formats == ["onnx"]
    assert result.document["config"]["file"] == "conf/ci.toml"
    # Paths start from the folder of the file.
    assert (tmp_path / "conf" / "result.xml").is_file()
    monkeypatch.setenv("EDGEATTN_CONFIG", "conf/ci.toml")
    assert validate()[1] == ["onnx"]
    assert validate("--config", "edgeattn.toml")[1] == ["tflite"]
    assert len(validate("--no-config")[1]) == 2
    monkeypatch.setenv("EDGEATTN_CONFIG", "nowhere.toml")
    result, _ = validate()
    assert (result.code, "No such config file: nowhere.toml" in result.err) == (2, True)


def test_pyproject(validate, tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text('[tool.edgeattn.validate]\nformat = "onnx"\n')
    result, formats = validate()
    assert (formats, result.err) == (["onnx"], "Options from pyproject.toml: format\n")
    path.write_text('[tool.edgeattn.validate]\nformat = "exe"\n')
    result, _ = validate()
    assert result.code == 2
    assert "pyproject.toml: [tool.edgeattn.validate] format: 'exe' is not one of" in result.err
    path.write_text('[project]\nname = "edgeattn-user"\n')
    result, _ = validate("--config", path)
    assert (result.code, "has no table [tool.edgeattn]" in result.err) == (2, True)


def found_in(folder: Path) -> Path | None:
    config = find(folder, COMMANDS)
    return None if config is None else config.path.resolve()


def test_search(tmp_path):
    """From the folder up to the root of its repository; outside of one, only the folder."""
    below = tmp_path / "project" / "a" / "b"
    below.mkdir(parents=True)
    above, own = tmp_path / "edgeattn.toml", tmp_path / "project" / "edgeattn.toml"
    above.write_text(ONNX_ONLY)
    own.write_text(ONNX_ONLY)
    assert found_in(below) is None
    assert found_in(own.parent) == own
    (tmp_path / "project" / ".git").mkdir()
    assert found_in(below) == own
    own.unlink()
    assert found_in(below) is None
    shared = tmp_path / "project" / "a" / "pyproject.toml"
    shared.write_text("[tool.other]\n")
    own.write_text(ONNX_ONLY)
    assert found_in(below) == own
    shared.write_text("[tool.edgeattn]\n")
    assert found_in(below) == shared


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[validate\n", "edgeattn.toml is not a valid TOML file", "at line 1"),
        ("[validat]\n", "validat is not a table of a command", "Did you mean validate?"),
        ("[recipe.a.validate]\n", "recipe is not a table of a command", "Did you mean recipes?"),
        ("validate = 3\n", "validate is 3, not a table", "[validate]"),
        ("recipes = []\n", "recipes is [], not a table", "[recipes]"),
        ("[recipes]\na = 1\n", "recipes.a is 1, not a table", "[recipes.a]"),
        ("[recipes.a]\njobs = 1\n", "recipes.a.jobs is not a table", "The commands are"),
        (
            "[validate]\nmax_drop = 0.1\n",
            "[validate] max_drop is not an option of edgeattn validate",
            "Did you mean max-drop?",
        ),
        ("[validate]\nbundle = 'b.edge'\n", "[validate] bundle is not an option", "--help"),
        ("[validate]\njson = true\n", "json is for the command line only", "--json"),
        ("[validate]\njobs = '2'\n", "[validate] jobs is '2'.", "Write an integer."),
        ("[validate]\njobs = 1.5\n", "[validate] jobs is 1.5.", "Write an integer."),
        ("[validate]\njobs = true\n", "[validate] jobs is True.", "Write an integer."),
        ("[validate]\njobs = 0\n", "[validate] jobs: 0 is not in the range x>=1.", ""),
        ("[validate]\nmax-drop = nan\n", "[validate] max-drop is nan.", "Write a number."),
        ("[validate]\nmax-drop = '0.1'\n", "[validate] max-drop is '0.1'.", "Write a number."),
        ("[validate]\nmax-drop = 2\n", "max-drop: 2.0 is not in the range 0<x<1.", ""),
        ("[validate]\nexplain = 'yes'\n", "explain is 'yes'.", "Write true or false."),
        ("[validate]\ndata = 3\n", "[validate] data is 3.", "Write a string in quotes."),
        ("[validate]\ndata = ['a']\n", "[validate] data is ['a'].", "Write a string in quotes."),
        ("[validate]\ndata = 2026-11-27\n", "data is datetime.date", "Write a string in quotes."),
        ("[validate]\nformat = 'onx'\n", "format: 'onx' is not one of", "Did you mean onnx?"),
        ("[fleet]\nname = 'a'\n", "fleet.name is not a table of a command", "mender-artifact"),
        ("[fleet]\nmender-module = 1\n", "fleet.mender-module is 1, not a table", "[fleet."),
        ("[fleet.mender-module]\nkeep = '3'\n", "mender-module] keep is '3'.", "an integer"),
        ("[validate]\nformat = [1]\n", "format is 1.", "or an array of such values"),
        ("[validate]\nformat = [['onnx']]\n", "format is ['onnx'].", "or an array"),
        # Tables of other commands and of recipes that are not used.
        ("[convert]\nbatch = 'two'\n", "[convert] batch is 'two'.", "Write an integer."),
        ("[recipes.a.tune]\nmost = 0\n", "[recipes.a.tune] most: 0 is not in the range", ""),
    ],
)
def test_mistakes(edgeattn, tmp_path, text, message, hint):
    (tmp_path / "edgeattn.toml").write_text(text)
    for arguments in ([], ["--config", "edgeattn.toml"]):
        result = edgeattn("validate", "b.edge", "--json", *arguments)
        assert result.code == 2
        error = result.document["error"]
        assert error["message"].startswith("edgeattn.toml")
        assert message in error["message"]
        assert hint in f"{error['message']} {error['hint']}"


def test_two_files_in_a_folder(edgeattn, tmp_path):
    (tmp_path / "edgeattn.toml").write_text(ONNX_ONLY)
    (tmp_path / "pyproject.toml").write_text("[tool.edgeattn.validate]\n")
    result = edgeattn("validate", "b.edge")
    assert result.code == 2
    assert "in both edgeattn.toml and pyproject.toml" in result.err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("convert", 'custom-objects = "layers.py"'),
        ("convert", 'architecture = "model.py:build"'),
        ("convert", 'trust = "00"'),
        ("validate", 'on = "user@host"'),
        ("validate", 'python = "/bin/python"'),
        ("bench", 'ssh-config = "config"'),
        ("deploy", 'hosts = "hosts"'),
        ("deploy", "install = true"),
        ("sweep", 'scheduler = "tcp://host:8786"'),
        ("serve", 'host = "0.0.0.0"'),
    ],
)
def test_options_that_run_code_or_reach_others_need_a_named_file(
    edgeattn, tmp_path, command, option
):
    """A downloaded folder may contain a config file, as it may contain a hostile model."""
    (tmp_path / "edgeattn.toml").write_text(f"[{command}]\n{option}\n")
    refused = "is accepted only from a file that is named on the command line"
    result = edgeattn("doctor", "--help")
    assert result.code == 0
    result = edgeattn("inspect", "nothing.h5")
    assert (result.code, refused in result.err) == (2, True)
    assert "--config edgeattn.toml" in result.err
    named = edgeattn("inspect", "nothing.h5", "--config", "edgeattn.toml")
    assert refused not in named.err
    assert "nothing.h5" in named.err


@pytest.mark.parametrize("path", ["../report.xml", "/tmp/report.xml", "link/report.xml"])
def test_a_found_file_writes_only_beside_itself(edgeattn, tmp_path, path):
    (tmp_path / "link").symlink_to(tmp_path.parent)
    (tmp_path / "edgeattn.toml").write_text(f'[validate]\njunit = "{path}"\n')
    result = edgeattn("validate", "b.edge")
    assert result.code == 2
    assert "is outside of the folder of the config file" in result.err
    result = edgeattn("validate", "b.edge", "--config", "edgeattn.toml")
    assert "No such bundle: b.edge" in result.err


def leaves(command):
    """The commands of a group, or the command itself."""
    return command.commands.values() if isinstance(command, click.Group) else [command]


def test_every_option_that_names_code_or_a_file_to_write_exists():
    """A renamed option would lose its protection."""
    options = {
        name
        for command in COMMANDS
        for leaf in leaves(load_command(command))
        for name in config_values._options(leaf)
    }
    protected = {*config_values.NAMED_ONLY, *config_values.WRITTEN, *config_values.PATHS_IN_TEXT}
    assert protected <= options
    assert set(config_values.COMMAND_LINE_ONLY) - {"help"} <= options


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_that_names_a_host_or_code_is_protected(name):
    pattern = r"HOST|ADDRESS|FILE\.py|ssh|Python that|Python on"
    for leaf in leaves(load_command(name)):
        for key, option in config_values._options(leaf).items():
            if re.search(pattern, f"{option.metavar} {option.help}"):
                assert key in config_values.NAMED_ONLY, key


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_accepts_config_files_and_knows_the_kinds_of_its_options(name):
    """Options of other kinds would accept any text."""
    kinds = {"boolean": "true or false", "integer": "an integer", "number": "a number"}
    kinds["lengths"] = "an integer or a string in quotes"
    for leaf in leaves(load_command(name)):
        assert isinstance(leaf, Command)
        for option in config_values._options(leaf).values():
            assert option.nargs == 1
            kind, _ = config_values._expected(option)
            assert kind == kinds.get(option.type.name, "a string in quotes")
            assert option.type.name in (*kinds, "text", "path", "choice")


def test_a_command_of_a_group(edgeattn, dense_bundle, tmp_path):
    (tmp_path / "edgeattn.toml").write_text(
        '[fleet.mender-module]\nkeep = 5\n[recipes.a.fleet.mender-module]\nroot = "/r"\n'
    )
    for arguments, keep in (([], "5"), (["--keep", 7], "7")):
        result = edgeattn("fleet", "mender-module", "-o", "m", "--force", *arguments)
        assert result.code == 0, result.err
        assert ("Options from edgeattn.toml: keep" in result.err) == (keep == "5")
        assert keep in (tmp_path / "m").read_text()
    result = edgeattn("fleet", "mender-module", "-o", "m", "--force", "--recipe", "a")
    assert "Options from edgeattn.toml, recipe a: keep, root" in result.err
    result = edgeattn("inspect", dense_bundle.path, "--recipe", "a")
    assert (result.code, "has no options of inspect" in result.err) == (2, True)


def test_shared_options_between_a_group_and_its_command(edgeattn, tmp_path):
    (tmp_path / "own.toml").write_text("[fleet.mender-module]\nkeep = 7\n")
    module = ("mender-module", "-o", "m")
    result = edgeattn("fleet", "--config", "own.toml", "-v", *module)
    assert (result.code, result.err) == (0, "Options from own.toml: keep\n")
    assert "--keep 7" in (tmp_path / "m").read_text()
    result = edgeattn("--no-config", "fleet", "--config", "own.toml", *module)
    assert (result.code, "--no-config excludes --config" in result.err) == (2, True)
    result = edgeattn("fleet", "--recipe", "a", *module)
    assert (result.code, "--recipe a requires a config file" in result.err) == (2, True)


def test_the_manifest_has_the_options(tmp_path):
    record = ConfigRecord("edgeattn.toml", "00", "pi5", {"scheme": ["int8"]})
    assert stored_config() is None
    with stored_in_bundles(record):
        config = stored_config()
    assert stored_config() is None
    bundle = write_dense_bundle(tmp_path / "b.edge")
    document = {**bundle.manifest.to_json(), "config": config}
    (bundle.path / "manifest.json").write_text(json.dumps(document))
    opened = Bundle.open(bundle.path).manifest
    assert opened.config == {
        "file": "edgeattn.toml",
        "sha256": "00",
        "recipe": "pi5",
        "options": {"scheme": ["int8"]},
    }
    assert Manifest.from_json(opened.to_json()) == opened
