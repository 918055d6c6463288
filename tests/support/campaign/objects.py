"""An object store that fails: errors, cut and lost answers, connections that hang; writers killed, clocks that jump."""

from __future__ import annotations

import os
import pickle
import random
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

from support.campaign.clocks import JUMPS, wrong_clock
from support.campaign.process import KILLED, Result
from support.campaign.trial import Round, differences
from support.campaign.workshop import normal

CHAINS = (
    ("ingest digits {store}", "subset {store} lt --imbalance 20", "sample {store} --name ng --per-class 5 --no-quality",
     "verify {store}", "export {store} new.npz --format npz", "train {store} --head gda --out new"),
    ("import vectors.npy {store} --labels labels.npy --model made", "index {store}", "verify {store}",
     "train {store} --head ncm --out new"),
)  # fmt: skip
FAULTS = ("500", "503", "cut", "reset", "lost", "hang")


def run(round_: Round) -> None:
    """Run a chain of commands against a service that fails, each until it is through; compare the objects."""
    rng = round_.rng
    server = _server(round_)
    chain = rng.choice(CHAINS)
    kinds = rng.sample(FAULTS, rng.randint(1, 3))
    share = rng.choice([0.02, 0.1, 0.4])
    expected = _expected(round_, server, chain)
    round_.shop.renew()
    store = f"s3://bucket/{round_.number}/new.zarr"
    with round_.of(f"{share:.0%} of requests fail ({', '.join(kinds)}), {store}"):
        for line in chain:
            words = line.format(store=store).split()
            server.fail(rng.randrange(1 << 30), share, kinds)
            for _ in range(rng.randint(1, 3)):
                jumps = [rng.choice(JUMPS)] if rng.random() < 0.3 else []
                running = round_.start(words, partial(server.seen_from, jumps))
                killed = rng.random() < 0.3
                if killed:
                    time.sleep(rng.uniform(0.05, 2))
                    running.kill()
                result = running.wait()
                round_.count(result, may_die=(KILLED,))
                if result.code == 0:
                    break
            server.fail(0, 0.0, [])
            if result.code != 0:
                again = round_.start(words, partial(server.seen_from, [])).wait()
                assert again.code == 0 or _done_before(again), f"it does not go on: {again}"
                round_.counts["resumed to the same"] += 1
        wrong = differences(server.objects(store), expected)
        assert not wrong, f"other objects than of an undisturbed chain: {wrong[:8]}"


def _done_before(result: Result) -> bool:
    return result.refused and (
        "there already" in result.err or "exist" in result.err or "--force" in result.err
    )


class _Server:
    """The S3 server of support.object_server in a process of its own, and a file by which it is told to fail."""

    def __init__(self, scratch: Path) -> None:
        self._orders, self._scratch = scratch / "orders", scratch
        self._orders.write_bytes(pickle.dumps((0, 0.0, [])))
        reader, writer = os.pipe()
        parent = os.getpid()
        self.process = os.fork()
        if not self.process:
            os.close(reader)
            _serve(self._orders, writer, parent)
            os._exit(0)
        os.close(writer)
        self.environment: dict[str, str] = pickle.loads(os.read(reader, 65536))  # noqa: S301 - from our own fork
        os.close(reader)

    def fail(self, seed: int, share: float, kinds: list[str]) -> None:
        """From now on this share of requests goes wrong."""
        aside = self._orders.with_suffix(".new")
        aside.write_bytes(pickle.dumps((seed, share, kinds)))
        aside.replace(self._orders)

    def seen_from(self, jumps: list[float]) -> None:
        """Let this process find the server; its clock is off by `jumps`."""
        import ltstore.storage.lease as lease

        os.environ.update(self.environment)
        lease.LEASE_SECONDS, lease.RENEW_SECONDS = 3.0, 0.5  # who waits for a lease to end waits less
        if jumps:
            wrong_clock(jumps)

    def objects(self, store: str) -> dict[str, Any]:
        """Every object below a name, as files are compared."""
        file = self._scratch / "objects"
        child = os.fork()
        if not child:
            try:
                from ltstore.storage import open_location
                from support.memory import objects

                self.seen_from([])
                found = objects(open_location(store))
                file.write_bytes(pickle.dumps({name: normal(data, name) for name, data in found.items()}))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        found: dict[str, Any] = pickle.loads(file.read_bytes())  # noqa: S301 - from our own fork
        file.unlink()
        return found


def _serve(orders: Path, writer: int, parent: int) -> None:
    from support.object_server import Request, object_server

    def fault(request: Request) -> str:
        try:
            seed, share, kinds = pickle.loads(orders.read_bytes())  # noqa: S301 - from the campaign
        except (OSError, EOFError):
            return ""
        rng = random.Random(f"{seed}/{request.number}")
        return rng.choice(kinds) if kinds and rng.random() < share else ""

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # clients that were killed are no news
    with object_server() as server:
        server.fault = fault
        server.hang_seconds = 1.0
        os.write(writer, pickle.dumps({**server.environment, "AWS_ALLOW_HTTP": "true"}))
        while os.getppid() == parent:
            time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


def _server(round_: Round) -> _Server:
    return round_.shop.once("server", lambda: _Server(round_.shop.scratch))


def _expected(round_: Round, server: _Server, chain: tuple[str, ...]) -> dict[str, Any]:
    def run_undisturbed() -> dict[str, Any]:
        store = f"s3://bucket/whole-{CHAINS.index(chain)}/new.zarr"
        server.fail(0, 0.0, [])
        round_.shop.renew()
        for line in chain:
            result = round_.start(line.format(store=store).split(), partial(server.seen_from, [])).wait()
            assert result.code == 0, result
        return server.objects(store)

    return round_.shop.once(("chain", chain), run_undisturbed)
