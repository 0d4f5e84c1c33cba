"""An encoder block in SecretFlow SPU, written in jax: what encoder.py holds beside this one.  2 parties as processes.

A request names a file of weights, an input and what is right, and a protocol: SEMI2K with triples from seeds, which
the first party corrects during the run, or CHEETAH, whose triples two parties make of each other's ciphertexts.
Functions are as jax has them, and SPU's own approximations of exp, the error function and roots are its defaults.
"""

import multiprocessing as processes
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from serving import answer, requests, timed
from spu_peer import free_addresses, packed, party, unpacked


def block(x: Any, weights: list, heads: int) -> Any:
    """Compute one post-norm encoder layer and the pooler of its first token, weights in the model's order."""
    import jax
    import jax.numpy as jnp

    own = iter(weights)

    def linear(x: Any) -> Any:
        return x @ next(own) + next(own)

    def normal(x: Any) -> Any:
        apart = x - x.mean(axis=-1, keepdims=True)
        return apart * jax.lax.rsqrt((apart * apart).mean(axis=-1, keepdims=True) + 1e-5) * next(own) + next(own)

    def split(x: Any) -> Any:
        return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    query, key, value = (split(linear(x)) for _ in range(3))
    scores = query @ key.transpose(0, 1, 3, 2) / np.float32(np.sqrt(query.shape[-1]))
    mixed = (jax.nn.softmax(scores, axis=-1) @ value).transpose(0, 2, 1, 3).reshape(x.shape)
    x = normal(x + linear(mixed))
    x = normal(x + linear(jax.nn.gelu(linear(x), approximate=True)))
    return jnp.tanh(linear(x[:, 0]))


def compiled(x: np.ndarray, weights: list[np.ndarray], heads: int) -> Any:
    """Return the program of which all inputs are secret."""
    import jax
    from spu import libspu
    from spu.utils import frontend

    def program(x: Any, weights: list) -> Any:
        return block(x, weights, heads)

    values, _ = jax.tree_util.tree_flatten((x, weights))
    names, secret = [f"in{i}" for i in range(len(values))], [libspu.Visibility.VIS_SECRET] * len(values)
    executable, _ = frontend.compile(
        frontend.Kind.JAX, program, (x, weights), {}, names, secret, lambda out: [f"out{i}" for i in range(len(out))]
    )
    return executable


class Parties:
    """Two parties of one protocol, each a process.  A context manager."""

    def __init__(self, protocol: str, folder: Path) -> None:
        context = processes.get_context("spawn")
        addresses, pipes = free_addresses(2), [context.Pipe() for _ in range(2)]
        self.logs = [folder / f"{protocol}-{rank}.log" for rank in range(2)]
        self._processes = [
            context.Process(target=party, args=(i, addresses, pipes[i][1], protocol, str(self.logs[i])), daemon=True)
            for i in range(2)
        ]
        for one in self._processes:
            one.start()
        self.channels = [ours for ours, _ in pipes]
        for _, theirs in pipes:
            theirs.close()

    def cpu(self) -> float:
        """Return CPU seconds so far, the mean of both parties (Linux)."""
        stats = [Path(f"/proc/{one.pid}/stat").read_text().rpartition(")")[2].split() for one in self._processes]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK") / len(stats)

    def __enter__(self) -> "Parties":
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self.channels:
            channel.send(None)
        for one in self._processes:
            one.join(10)


def serve(request: dict, parties: Parties) -> dict:
    """Share the weights, then share an input, run and open as often as asked."""
    from spu import api, libspu

    stored = np.load(request["file"])
    weights = [stored[f"w{i}"] for i in range(sum(name.startswith("w") for name in stored.files))]
    protocol = getattr(libspu.ProtocolKind, request["protocol"])
    config = libspu.RuntimeConfig(protocol=protocol, field=libspu.FieldType.FM64)
    config.fxp_fraction_bits = 18
    io, x = api.Io(2, config), stored["x"]
    program = compiled(x, weights, request["heads"])

    def shares(value: np.ndarray) -> list:
        return [packed(one) for one in io.make_shares(np.array(value), libspu.Visibility.VIS_SECRET)]

    both = list(zip(*map(shares, weights), strict=True))
    for channel, own in zip(parties.channels, both, strict=True):
        channel.send(("program", (program.code, program.input_names, program.output_names, own)))
    for channel in parties.channels:
        channel.recv()

    def run() -> np.ndarray:
        for channel, own in zip(parties.channels, shares(x), strict=True):
            channel.send(("run", own))
        return io.reconstruct([unpacked(channel.recv()) for channel in parties.channels])

    began = parties.cpu()
    times, result = timed(run, request["repeat"])
    cpu = (parties.cpu() - began) / (1 + len(times))
    error = float(np.abs(result - stored["expected"]).max())
    return {"times": times, "cpu_s": cpu, "error": error, "sent": [sent_of(log) for log in parties.logs]}


def sent_of(log: Path) -> int | None:
    """Return the bytes that a party sent in its last run, as SPU says; None if it does not."""
    found = re.findall(r"send bytes (\d+)", log.read_text()) if log.exists() else []
    return int(found[-1]) if found else None


def main() -> None:
    running: dict[str, Parties] = {}
    with tempfile.TemporaryDirectory() as folder:
        for request in requests():
            try:
                protocol = request["protocol"]
                if protocol not in running:
                    running[protocol] = Parties(protocol, Path(folder))
                answer(serve(request, running[protocol]))
            except Exception as error:
                answer({"failed": f"{type(error).__name__}: {error}"[:300]})
        for parties in running.values():
            parties.__exit__()


if __name__ == "__main__":
    main()
