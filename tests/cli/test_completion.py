"""Completion in bash, zsh and fish: what a shell is told when a person presses tab, through the variables it sets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from ltstore_cli import _completion
from ltstore_cli.app import COMMANDS, app
from support.shell import Shell
from support.stores import made_store

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture(params=SHELLS)
def tab(request: pytest.FixtureRequest, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Type words, press tab, and see the values that the shell is given."""

    def press(*words: str) -> list[str]:
        monkeypatch.setenv("_LTSTORE_COMPLETE", f"complete_{request.param}")
        typed = " ".join(["ltstore", *words])
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", typed)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        out = shell.ok().out.strip()
        if request.param == "zsh":
            if out == "_files":
                return []
            pairs = out.removeprefix("_arguments '*: :((").removesuffix("))'")
            out = "\n".join(line.split('":"')[0].strip('"') for line in pairs.splitlines() if line[0] == '"')
            out = out.replace(r"\\:", ":")
        return [line.split("\t")[0] for line in out.splitlines()]

    return press


def test_commands_and_options(tab: Any) -> None:
    assert tab("ex") == ["export", "export-model"]
    assert set(COMMANDS) <= set(tab(""))
    assert "--null" in tab("predict", "--")
    assert all(
        word.startswith("--") for word in tab("train", "--")
    )  # of help on several lines each would be a word


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["train", "s.zarr", "--sampler", "s"], ["smote"]),
        (["sample", "s.zarr", "--sampler", "d"], ["distribution-calibration", "duplicate"]),
        (["train", "s.zarr", "--head", "g"], ["gda"]),
        (["train", "s.zarr", "--loss", ""], ["la", "ce"]),
        (["ingest", "photos", "s.zarr", "--encoder", "p"], ["pixels"]),
        (["ingest", "photos", "s.zarr", "--format", "par"], ["parquet"]),
        (["ingest", "photos", "s.zarr", "--engine", "r"], ["ray"]),
        (["export", "s.zarr", "out", "--format", "np"], ["npy", "npz"]),
        (["export-model", "m", "out", "--format", "o"], ["onnx"]),
        (["index", "s.zarr", "--kind", "iv"], ["ivf", "ivfpq"]),
        (["subset", "s.zarr", "name", "--rule", "h"], ["holdout"]),
        (["train", "s.zarr", "--head", "nonsense"], []),
    ],
)
def test_names_after_an_option(words: list[str], found: list[str], tab: Any) -> None:
    assert tab(*words) == found


def test_splits_and_subsets_of_the_store_that_was_typed(
    tab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made_store(tmp_path / "s.zarr")
    store.split("train").add_subset("longtail", [0, 1], settings={})
    monkeypatch.chdir(tmp_path)
    assert tab("train", "s.zarr", "--split", "") == ["train"]
    assert tab("evaluate", "model", "--store", "s.zarr", "--split", "t") == ["train"]
    assert tab("predict", "model", "--store", "s.zarr", "--split", "x") == []
    assert tab("train", "s.zarr", "--subset", "l") == ["longtail"]
    assert tab("predict", "m", "--store", "s.zarr", "--split", "train", "--subset", "") == ["longtail"]
    assert tab("train", "absent.zarr", "--split", "") == []
    assert tab("train", "s3://bucket/s.zarr", "--split", "") == []


def test_the_names_are_those_of_the_library() -> None:
    from ltstore.encode.encoders import FAMILIES
    from ltstore.engine.opening import ENGINES
    from ltstore.linear.settings import LOSSES
    from ltstore.neighbors.kinds import KINDS
    from ltstore.sampling.registry import SAMPLERS
    from ltstore.sources import PUBLISHED
    from ltstore.sources.opening import FORMATS
    from ltstore.transfer import EXPORT_FORMATS, IMPORT_FORMATS
    from ltstore.workflow import SUBSET_RULES
    from ltstore.workflow.exporting import FORMATS as MODEL_FORMATS
    from ltstore.workflow.selection import DONORS_BY
    from ltstore.workflow.training.head import HEADS

    assert set(_completion.SAMPLERS) == set(SAMPLERS)
    assert set(_completion.HEADS) == set(HEADS)
    assert set(_completion.LOSSES) == set(LOSSES)
    assert set(_completion.SOURCES) == set(FORMATS)
    assert set(_completion.LAYOUTS) == set(EXPORT_FORMATS) == set(IMPORT_FORMATS)
    assert set(_completion.MODEL_FORMATS) == set(MODEL_FORMATS)
    assert set(_completion.ENGINES) == set(ENGINES)
    assert set(_completion.DONORS_BY) == set(DONORS_BY)
    assert set(_completion.INDEX_KINDS) == {"auto", *KINDS}
    assert set(_completion.PUBLISHED) == set(PUBLISHED)
    assert set(_completion.SUBSET_RULES) == set(SUBSET_RULES)
    assert {name.partition(":")[0] for name in _completion.ENCODERS} == set(FAMILIES)


def test_the_encoders_offered_are_published() -> None:
    open_clip, timm = pytest.importorskip("open_clip"), pytest.importorskip("timm")
    for family, _, name in (spec.partition(":") for spec in _completion.ENCODERS):
        architecture, _, tag = name.partition("/")
        if family == "open_clip":
            assert tag in open_clip.list_pretrained_tags_by_model(architecture)
        if family == "timm":
            assert f"{architecture}.{tag}" in timm.list_pretrained()


def test_a_tab_loads_nothing_heavy(tmp_path: Path) -> None:
    made_store(tmp_path / "s.zarr")
    code = (
        "import sys\nfrom ltstore_cli.app import main\nsys.argv = ['ltstore']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([m for m in ('numpy', 'zarr', 'torch', 'PIL', 'ltstore.store') if m in sys.modules])"
    )
    words = {"COMP_WORDS": f"ltstore train {tmp_path / 's.zarr'} --split ", "COMP_CWORD": "4"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **words, "_LTSTORE_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["train", "[]"]


@pytest.fixture
def real_shell(tmp_path: Path) -> Any:
    """Run a script in a shell that finds `ltstore`; return the lines it prints."""

    def run(name: str, *words: str) -> list[str]:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
        (tmp_path / "ltstore").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ltstore_cli.app "$@"\n')
        (tmp_path / "ltstore").chmod(0o755)
        there = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "xterm"}
        done = subprocess.run(
            [name, *words],
            env={**os.environ, **there},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_bash_itself_completes(real_shell: Any) -> None:
    """The script that `--show-completion` prints, sourced, and the function called that bash calls at a tab."""
    script = (
        'eval "$(ltstore --show-completion)"\n'
        "COMP_WORDS=(ltstore train s.zarr --head co) COMP_CWORD=4\n"
        '_ltstore_completion ltstore co --head\necho "${COMPREPLY[@]}"\ncomplete -p ltstore\n'
    )
    assert real_shell("bash", "--norc", "-c", script) == [
        "cosine",
        "complete -o default -F _ltstore_completion ltstore",
    ]


FISH = """
env _LTSTORE_COMPLETE=source_fish ltstore | source
complete -C "ltstore reprod" | cut -f 1
complete -C "ltstore train s.zarr --head co"
complete -C "ltstore ingest photos s.zarr --encoder open_clip:ViT-B"
complete -C "ltstore train s.zarr --los"
touch s.zarr
complete -C "ltstore train s."
"""


def test_fish_itself_completes(real_shell: Any) -> None:
    assert real_shell("fish", "--no-config", "-c", FISH) == [
        "reproduce",
        "cosine",
        "open_clip:ViT-B-32/laion2b_s34b_b79k",
        "--loss\tla (default: logit-adjusted by the prior of the rows fed) or ce (plain cross entropy).",
        "s.zarr",
    ]


ZSH = r"""
zmodload zsh/zpty
zpty terminal zsh -f -i
zpty -w terminal "PS1=; PS2=; autoload -Uz compinit; compinit -u -D; unsetopt zle_bracketed_paste"
zpty -w terminal 'eval "$(_LTSTORE_COMPLETE=source_zsh ltstore)"; bindkey "^I" complete-word; touch s.zarr'
zpty -w terminal 'took() { print -r -- "<$BUFFER>"; BUFFER=; zle accept-line }; zle -N took; bindkey "^T" took'
zpty -w terminal 'print RE""ADY'
zpty -r terminal output '*READY*'
for typed in "ltstore reprod" "ltstore train s.zarr --head co" "ltstore train s.zarr --los" "ltstore train s." \
    "ltstore ingest photos s.zarr --encoder open_clip:ViT-B"; do
    zpty -w -n terminal "$typed"$'\t\x14'
    zpty -r terminal output '*<*>*'
    print -r -- "${${output##*<}%%>*}"
done
zpty -d terminal
"""


def test_zsh_itself_completes(real_shell: Any) -> None:
    """In a terminal of its own, since completion is of its line editor."""
    assert [line.rstrip() for line in real_shell("zsh", "-f", "-c", ZSH)] == [
        "ltstore reproduce",
        "ltstore train s.zarr --head cosine",
        "ltstore train s.zarr --loss",
        "ltstore train s.zarr",
        "ltstore ingest photos s.zarr --encoder open_clip:ViT-B-32/laion2b_s34b_b79k",
    ]


@pytest.mark.parametrize("name", SHELLS)
def test_the_script_of_each_shell_is_printed_whatever_runs_it(
    name: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_LTSTORE_COMPLETE", f"source_{name}")
    script = shell.ok().out
    assert f"_LTSTORE_COMPLETE=complete_{name}" in script


def test_every_option_of_a_split_is_completed() -> None:
    group = get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        for parameter in command.params:
            if set(parameter.opts) & {"--split", "--subset", "--sampler", "--head"}:
                assert parameter._custom_shell_complete is not None, (name, parameter.opts)
