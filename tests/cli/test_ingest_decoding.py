"""`ingest --full-decode`, and stores that were made before there was a choice."""

from __future__ import annotations

from pathlib import Path

from ltstore.store import open_store
from support.images import class_tree
from support.onnx_nets import write_net
from support.shell import Shell


def test_the_first_ingest_chooses_and_the_next_follow(shell: Shell, tmp_path: Path) -> None:
    tree = str(class_tree(tmp_path / "tree", {"a": 2, "b": 2}))
    net = write_net(tmp_path / "net.onnx")
    encoder = ("--encoder", f"onnx:{net}", "--encoder-option", "mean=5")
    for store, words, found in (("fast", (), "fast"), ("full", ("--full-decode",), None)):
        path = str(tmp_path / store)
        shell.ok("ingest", tree, path, *encoder, *words)
        assert open_store(path).encoder.preprocessing.get("decoding") == found
        shell.ok("ingest", tree, path, "--split", "again")
        shell.ok("ingest", tree, path, "--split", "named", *encoder)
        assert open_store(path).splits == ("again", "named", "train")
    shell.ok("ingest", tree, str(tmp_path / "full"), "--split", "asked", "--full-decode")
    refused = shell("ingest", tree, str(tmp_path / "fast"), "--split", "more", "--full-decode")
    assert refused.code == 1
    assert "preprocessing.decoding: fast / not set" in refused.err
