"""Places in the Python files of the user, and of packages of the user, for messages."""

import sysconfig
import traceback
from pathlib import Path
from types import FrameType

# Folders of installed packages, in a virtual environment and on Debian.
_PACKAGES = ("site-packages", "dist-packages")
_OF_EDGEATTN = ("edgeattn", "edgeattn_converters")


def last_line(error: BaseException) -> tuple[str, int] | None:
    """Return the file of the user and the line that raised an error, or called what raised it."""
    last = _last(error)
    return None if last is None else (_short_name(last[0]), last[1])


def last_function(error: BaseException) -> str:
    """Return the function of that line, and its file: "Net.call in own.py"; "" if there is none."""
    last = _last(error)
    if last is None:
        return ""
    name, file = last[0].f_code.co_qualname.partition(".<locals>")[0], _short_name(last[0])
    return file if name.startswith("<") else f"{name} in {file}"


def _last(error: BaseException) -> tuple[FrameType, int] | None:
    """Return the last frame in files of the user, with its line."""
    frames = traceback.walk_tb(error.__traceback__)
    return next((item for item in reversed(list(frames)) if is_own(item[0])), None)


def place(error: BaseException) -> str:
    """Return the text that follows an error message: " (own.py, line 20)", or nothing."""
    line = last_line(error)
    # The message of a SyntaxError has the place of the error; its import is elsewhere.
    if line is None or isinstance(error, SyntaxError):
        return ""
    return " ({}, line {})".format(*line)


def last_call(error: BaseException) -> str:
    """Return the innermost call in a file of the user that led to an error: "own.py, line 20"."""
    call = ""
    cause: BaseException | None = error
    seen: list[BaseException] = []
    while cause is not None and not any(cause is item for item in seen):
        seen.append(cause)  # Keras raises errors again, whose contexts may be a cycle
        for frame, line in traceback.walk_tb(cause.__traceback__):
            if is_own(frame):
                call = f"{frame.f_code.co_qualname} ({_short_name(frame)}, line {line})"
        cause = cause.__cause__ or cause.__context__
    return call


def installed_package(error: BaseException) -> str | None:
    """Return the installed package whose code raised an error, as it is imported; None if own."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if _is_of_file(frame)]
    if not frames or not _is_installed(frames[-1]):
        return None
    return _package(frames[-1])


def _short_name(frame: FrameType) -> str:
    """Return the name of a file, with its folder if the name alone is that of every package."""
    file = Path(frame.f_code.co_filename)
    return f"{file.parent.name}/{file.name}" if file.name == "__init__.py" else file.name


def is_own(frame: FrameType) -> bool:
    """Return whether the code is in a file of the user, which is no installed package."""
    of_python = Path(frame.f_code.co_filename).is_relative_to(sysconfig.get_path("stdlib"))
    return _is_of_file(frame) and not _is_installed(frame) and not of_python


def _is_of_file(frame: FrameType) -> bool:
    """Return whether the code is in a file that somebody wrote, which is not part of edgeattn."""
    file = Path(frame.f_code.co_filename)
    # Python names its import system "<frozen ...>"; AutoGraph writes files of its own.
    written = file.is_absolute() and not file.name.startswith("__autograph_generated")
    return written and _package(frame) not in _OF_EDGEATTN


def _is_installed(frame: FrameType) -> bool:
    return any(folder in Path(frame.f_code.co_filename).parts for folder in _PACKAGES)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).split(".")[0]
