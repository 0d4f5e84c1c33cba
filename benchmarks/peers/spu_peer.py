"""SecretFlow SPU: SEMI2K, 2 parties as processes over its own links, passive, secret weights.  Its triples come
from seeds, corrected by the first party during the run."""

import multiprocessing as processes
import os
import socket
from typing import Any

import numpy as np
from serving import answer, network, random_input, requests, summary, timed


def forward(layers: list, x: Any, weights: dict) -> Any:
    """The network as jax has it."""
    import jax
    import jax.numpy as jnp

    for layer in layers:
        own = {part: weights.get(f"{layer.name}.{part}") for part in ("weight", "bias")}
        if layer.kind == "conv":
            stride, padding = layer.sizes[3:]
            x = jax.lax.conv_general_dilated(x, own["weight"], (stride, stride), [(padding, padding)] * 2)
            x = x + own["bias"][None, :, None, None]
        elif layer.kind == "MaxPool":
            size, stride = layer.sizes
            start = -np.inf
            x = jax.lax.reduce_window(x, start, jax.lax.max, (1, 1, size, size), (1, 1, stride, stride), "VALID")
        elif layer.kind == "FC":
            x = x @ own["weight"].T + own["bias"]
        elif layer.kind == "ReLU":
            x = jnp.maximum(x, 0)
        elif layer.kind == "sigmoid":
            x = jax.nn.sigmoid(x)
        else:
            x = x.reshape(len(x), -1)
    return x


def compiled(name: str, batch: int) -> tuple[Any, list[np.ndarray]]:
    """The program, and what goes into it: the input first, then the weights."""
    import jax
    from spu import libspu
    from spu.utils import frontend

    found, layers, weights = network(name)
    x = random_input(found, batch)

    def program(x: Any, weights: dict) -> Any:
        return forward(layers, x, weights)

    values, _ = jax.tree_util.tree_flatten((x, weights))
    names = [f"in{index}" for index in range(len(values))]
    secret = [libspu.Visibility.VIS_SECRET] * len(values)
    executable, _ = frontend.compile(
        frontend.Kind.JAX, program, (x, weights), {}, names, secret, lambda out: [f"out{i}" for i in range(len(out))]
    )
    return executable, values


def party(rank: int, addresses: list[str], channel: Any, protocol: str = "SEMI2K", log: str = "") -> None:
    """Serve commands until there is None: a request, whose weights are shared once, then True for every run.

    log: a file for what SPU says of each run, the bytes that were sent among it.
    """
    if log:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(descriptor, 1), os.dup2(descriptor, 2)
    from spu import api, libspu

    description = libspu.link.Desc()
    for index, address in enumerate(addresses):
        description.add_party(f"party-{index}", address)
    description.recv_timeout_ms = 600_000
    kind = getattr(libspu.ProtocolKind, protocol)
    config = libspu.RuntimeConfig(protocol=kind, field=libspu.FieldType.FM64)
    config.fxp_fraction_bits = 18
    config.enable_pphlo_profile = bool(log)
    runtime = api.Runtime(libspu.link.create_brpc(description, rank), config)
    program = None
    while (command := channel.recv()) is not None:
        what, given = command
        if what == "program":
            text, names, outputs, shares = given
            for name in program.input_names + program.output_names if program else ():
                runtime.del_var(name)
            program = libspu.Executable(name="network", input_names=names, output_names=outputs, code=text)
            for name, share in zip(names[1:], map(unpacked, shares), strict=True):
                runtime.set_var(name, share)
            channel.send(None)
        else:
            runtime.set_var(program.input_names[0], unpacked(given))
            runtime.run(program)
            channel.send(packed(runtime.get_var(program.output_names[0])))


def packed(share: Any) -> tuple:
    return share.meta, list(share.share_chunks)


def unpacked(parts: tuple) -> Any:
    from spu import libspu

    share = libspu.Share()
    share.meta, share.share_chunks = parts
    return share


def serve(request: dict, channels: list) -> dict:
    """Share the weights, then share an input, run and open as often as asked."""
    from spu import api, libspu

    config = libspu.RuntimeConfig(protocol=libspu.ProtocolKind.SEMI2K, field=libspu.FieldType.FM64)
    config.fxp_fraction_bits = 18
    io = api.Io(2, config)
    executable, values = compiled(request["network"], request["batch"])

    def shares(value: np.ndarray) -> list:
        return [packed(one) for one in io.make_shares(np.array(value), libspu.Visibility.VIS_SECRET)]

    both = list(zip(*map(shares, values[1:]), strict=True))
    for channel, own in zip(channels, both, strict=True):
        channel.send(("program", (executable.code, executable.input_names, executable.output_names, own)))
    for channel in channels:
        channel.recv()

    def run() -> np.ndarray:
        for channel, own in zip(channels, shares(values[0]), strict=True):
            channel.send(("run", own))
        return io.reconstruct([unpacked(channel.recv()) for channel in channels])

    times, result = timed(run, request["repeat"])
    return summary(request["network"], request["batch"], times, result)


def free_addresses(count: int) -> list[str]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in held]
    for one in held:
        one.close()
    return addresses


def main() -> None:
    context = processes.get_context("spawn")
    addresses, pipes = free_addresses(2), [context.Pipe() for _ in range(2)]
    parties = [context.Process(target=party, args=(rank, addresses, pipes[rank][1]), daemon=True) for rank in range(2)]
    for one in parties:
        one.start()
    channels = [ours for ours, _ in pipes]
    for _, theirs in pipes:
        theirs.close()  # or the end of a party would never be noticed
    for request in requests():
        try:
            answer(serve(request, channels))
        except Exception as error:
            answer({"failed": f"{type(error).__name__}: {error}"[:300]})
    for channel in channels:
        channel.send(None)
    for one in parties:
        one.join(10)


if __name__ == "__main__":
    main()
