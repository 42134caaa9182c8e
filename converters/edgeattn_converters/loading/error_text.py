"""Texts of errors of Keras in one line, with their reasons."""

import re
from pathlib import Path

from edgeattn_converters.loading.own_code import own_files

_FORMATTING = re.compile(r"\x1b\[[\d;]*m")
# Keras puts the reason between texts of its own.
_BEFORE = re.compile(
    r".*(Exception encountered: |Error encountered:\s|Exception encountered when calling [^\n]*\n)",
    re.DOTALL,
)
# AutoGraph marks the lines that it has converted, which are those of the user, with an asterisk.
_CONVERTED_LINE = re.compile(r'File "([^"]+)", line (\d+), in [^\n]+ \*\n')
_CALL = re.compile(r"Exception encountered when calling (\w+\.call)\(\)")
_AFTER = re.compile(r"\n\s*(Arguments received by |Call arguments received by )")


def reason(error: BaseException, most: int = 400) -> str:
    """Return the reason of an error; its middle is left out if it has more than ``most`` letters.

    It begins with the innermost layer or operation of Keras that failed, if the error names it.
    A KeyError has its message as a key, and would escape the formatting in it.
    """
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = _FORMATTING.sub("", str(message)).strip()
    found = _AFTER.split(_BEFORE.sub("", text))[0].strip()
    calls = _CALL.findall(text)
    name = _method_of_user(error, calls[-1]) if calls else ""
    return shortened(f"{name}: {found}" if calls and found else found or text, most)


def _method_of_user(error: BaseException, call: str) -> str:
    """Return the method of a layer of the user that failed, in whose place Keras names ``call``.

    Keras runs ``compute_output_shape`` while it calls a layer to build a model.
    """
    method = own_files.last_function(error).partition(" in ")[0].rpartition(".")[2]
    stated = method in ("compute_output_shape", "compute_output_spec")
    return f"{call.removesuffix('.call')}.{method}" if stated else call


def of_user_code(message: str) -> tuple[str, str] | None:
    """Return the innermost error in a message of AutoGraph, "NameError: ...", and its place.

    The place is the text that follows it: " (own.py, line 20)". None if it is no such message,
    which begins with "in user code:" and lists all calls before the error.
    """
    _, found, code = _FORMATTING.sub("", message).rpartition("in user code:\n")
    parts = [part.strip() for part in re.split(r"\n[ \t]*\n", code) if part.strip()]
    lines = _CONVERTED_LINE.findall(f"{parts[0]}\n" if found and parts else "")
    if len(parts) < 2 or not lines:
        return None
    file, line = lines[-1]
    return parts[1].splitlines()[0], f" ({Path(file).name}, line {line})"


def beginning(text: object, most: int) -> str:
    """Return the beginning of a text in one line, cut behind a word, with "…", if it is longer than
    ``most`` letters."""
    line = " ".join(_FORMATTING.sub("", str(text)).split())
    if len(line) <= most:
        return line
    cut = line[: most - 1]
    if line[most - 1] != " ":  # it would end inside a word, unless it has no other
        cut = cut.rpartition(" ")[0] or cut
    return f"{cut.rstrip(' .,:;')}…"


def shortened(text: str, most: int) -> str:
    """Return a text in one line, with its beginning and its end if it is too long."""
    line = " ".join(_FORMATTING.sub("", text).split())
    if len(line) <= most:
        return line
    half = (most - len(" ... ")) // 2
    return f"{line[:half].rsplit(' ', 1)[0]} ... {line[-half:].split(' ', 1)[-1]}"
