"""The command line's frame: one Typer app, one file per command, one place that turns errors into exit codes.

Exit codes: 0 done, 1 an error of the data or the machine (one line on stderr), 2 wrong usage, 130 Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from typing import Annotated, Any

import typer

from ltstore.cores import reserve_addresses
from ltstore.errors import ConfigError, LtstoreError
from ltstore_cli import _render

COMMANDS = (
    "quickstart",
    "estimate",
    "ingest",
    "import",
    "export",
    "info",
    "verify",
    "subset",
    "text",
    "index",
    "query",
    "donors",
    "backtest",
    "sample",
    "train",
    "ensemble",
    "evaluate",
    "predict",
    "export-model",
    "reproduce",
    "bench",
    "doctor",
)

INTERRUPTED = (
    "interrupted; what was written is kept, and an ingest, import, sample or reproduce goes on if run again"
)

SHORTAGES = (
    "cannot allocate memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "can't start new thread",
    "failed to map segment",
    "pyobject pointer is null",
    "without exception set",
)

app = typer.Typer(
    name="ltstore",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from ltstore import __version__

        _render.line(f"ltstore {__version__}")
        raise typer.Exit


@app.callback()
def frame(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file of defaults, one table per command; flags win over it."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: ARG001 - read by main
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Long-tailed classification on frozen vision embeddings.

    Images go in once (ingest); everything after that works on the store of their embeddings.
    New here? `ltstore quickstart` runs the whole chain on real images in under a minute.
    """
    reserve_addresses()
    if config is not None:
        context.default_map = _read_config(config, context)


def _read_config(path: Path, context: typer.Context) -> dict[str, Any]:
    """Return {command: {parameter: value}} of a TOML file; unknown tables and keys are refused."""
    import difflib
    import tomllib

    def refuse(what: str, name: str, known: list[str]) -> ConfigError:
        near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return ConfigError(f"{path}: unknown {what} {name!r}; {hint}")

    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ConfigError(f"cannot read --config {path}: {err.strerror}") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as err:
        raise ConfigError(f"{path} is not valid TOML: {err}") from err
    group: Any = context.command
    defaults: dict[str, dict[str, Any]] = {}
    for command, table in tables.items():
        if command not in group.commands or not isinstance(table, dict):
            raise refuse("table", f"{command}", sorted(group.commands))
        names = {
            spelling.lstrip("-").replace("-", "_"): parameter.name
            for parameter in group.commands[command].params
            for spelling in (*parameter.opts, parameter.name)
            if parameter.name != "help" and len(spelling.lstrip("-")) > 1
        }
        for key in table:
            if key.replace("-", "_") not in names:
                raise refuse(f"key in [{command}]:", key, sorted(names))
        defaults[command] = {names[key.replace("-", "_")]: value for key, value in table.items()}
    return defaults


for _name in COMMANDS:
    _word = f"{_name}_" if iskeyword(_name) else _name.replace("-", "_")  # `import` lives in import_.py
    app.command(_name)(getattr(import_module(f"ltstore_cli.{_word}"), _word))


def main() -> None:
    """Entry point of the `ltstore` script."""
    debug = "--debug" in sys.argv[1:]
    _render.show_log()
    if "_LTSTORE_COMPLETE" in os.environ:
        os.environ["COLUMNS"] = "1000"  # help that is wrapped would be one word to choose a line
    try:
        app(prog_name="ltstore")  # however it was started: completion goes by the name
    except LtstoreError as err:
        if debug:
            raise
        _render.error(str(err))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        _render.error(INTERRUPTED)
        raise SystemExit(130) from None
    except SystemExit as stop:  # Typer turns Ctrl-C into its exit code
        if stop.code == 130:
            _render.error(INTERRUPTED)
        raise
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except BaseException as err:  # a panic of a library written in Rust is no Exception
        if debug:
            raise
        if _is_of_memory(err):
            _render.error(
                f"out of memory ({err}): what was written is kept; free some, or raise the limit, and run again"
            )
        elif isinstance(err, OSError) and err.strerror:
            _render.error(f"cannot use {err.filename or 'a file, or where this prints to'}: {err.strerror}")
        else:
            _render.error(
                f"internal error ({type(err).__name__}: {err}); `ltstore --debug ...` shows the traceback"
            )
        raise SystemExit(1) from None


def _is_of_memory(err: BaseException) -> bool:
    """Whether memory has run out, in the words of whichever library was asked for more, or of what that came from."""
    cause = err.__cause__ or err.__context__
    return (
        isinstance(err, MemoryError)
        or any(words in str(err).lower() for words in SHORTAGES)
        or (cause is not None and _is_of_memory(cause))
    )


if __name__ == "__main__":
    main()
