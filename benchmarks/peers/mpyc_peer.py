"""MPyC: 3 parties as processes, passive, honest majority; everything is online.  A sigmoid is three straight lines."""

import socket
import sys
from typing import Any

import numpy as np
from serving import answer, network, random_input, requests, summary, windows

if "-M3" not in sys.argv:  # else this is a further party, started by the first with its arguments
    with socket.create_server(("127.0.0.1", 0)) as free:
        sys.argv[1:1] = ["-M3", "-B", str(free.getsockname()[1])]

from mpyc.runtime import mpc

SECURE = mpc.SecFxp(32, 16)


def shared(array: np.ndarray) -> Any:
    """A whole array is fixed point, even where all of its numbers happen to be integers."""
    return mpc.input(SECURE.array(np.asarray(array, float), integral=False), senders=0)


def forward(layers: list, x: Any, weights: dict) -> Any:
    for layer in layers:
        own = {part: weights.get(f"{layer.name}.{part}") for part in ("weight", "bias")}
        if layer.kind == "FC":
            x = x @ own["weight"] + own["bias"]
        elif layer.kind == "conv":
            x = convolution(layer, x, own)
        elif layer.kind == "MaxPool":
            x = pooled(layer, x)
        elif layer.kind == "ReLU":
            x = (x > 0) * x
        elif layer.kind == "sigmoid":
            x = 0.25 * x + 0.5
            x = (x > 0) * x
            x = 1 - (1 - x > 0) * (1 - x)
        elif len(x.shape) > 2:
            x = mpc.np_reshape(x, (x.shape[0], int(np.prod(x.shape[1:]))))
    return x


def convolution(layer: Any, x: Any, own: dict) -> Any:
    """Rows of windows times a matrix of filters; channels move back to the front."""
    _, outputs, kernel, stride, padding = layer.sizes
    columns = windows_of(x, kernel, stride, padding)
    rows, height, width, size = columns.shape
    out = mpc.np_reshape(columns, (rows * height * width, size)) @ own["weight"] + own["bias"]
    out = mpc.np_reshape(out, (rows, height * width, outputs))
    return mpc.np_reshape(mpc.np_swapaxes(out, 1, 2), (rows, outputs, height, width))


def windows_of(x: Any, kernel: int, stride: int, padding: int) -> Any:
    """Which element goes where is public, so an index does it; index 0 is a zero, for the padding."""
    places = np.arange(1, int(np.prod(x.shape)) + 1).reshape(x.shape)
    flat = mpc.np_reshape(x, (places.size,))
    padded = mpc.np_concatenate((SECURE.array(np.zeros(1), integral=False), flat))
    chosen = windows(places, kernel, stride, padding)
    return mpc.np_reshape(padded[chosen.reshape(-1)], chosen.shape)


def pooled(layer: Any, x: Any) -> Any:
    """The largest of every window, two by two."""
    size, stride = layer.sizes
    rows, channels, height, width = x.shape
    columns = windows_of(mpc.np_reshape(x, (rows * channels, 1, height, width)), size, stride, 0)
    count, high, wide, many = columns.shape
    columns = mpc.np_reshape(columns, (count * high * wide, many))
    best = columns[:, 0]
    for index in range(1, many):
        best = best + (columns[:, index] > best) * (columns[:, index] - best)
    return mpc.np_reshape(best, (rows, channels, high, wide))


async def serve(request: dict) -> dict:
    found, layers, weights = network(request["network"])
    x = random_input(found, request["batch"])
    secret = {
        name: shared(array.reshape(len(array), -1).T if array.ndim > 1 else array) for name, array in weights.items()
    }
    await mpc.barrier()

    async def run() -> np.ndarray:
        return await mpc.output(forward(layers, shared(x), secret))

    times, result = await timed_async(run, request["repeat"])
    return summary(request["network"], request["batch"], times, result)


async def timed_async(run: Any, repeat: int) -> tuple[list[float], np.ndarray]:
    """As `timed`; how often is the first party's to say."""
    import time

    from serving import runs_of

    started, times = time.perf_counter(), []
    result = await run()
    for _ in range(await mpc.transfer(runs_of(time.perf_counter() - started, repeat), senders=0)):
        started = time.perf_counter()
        result = await run()
        times.append(time.perf_counter() - started)
    return times, result


async def main() -> None:
    await mpc.start()
    lines = requests() if mpc.pid == 0 else None
    while (request := await mpc.transfer(next(lines, None) if lines else None, senders=0)) is not None:
        try:
            reply = await serve(request)
        except Exception as error:
            reply = {"failed": f"{type(error).__name__}: {error}"[:300]}
        if mpc.pid == 0:
            answer(reply)
    await mpc.shutdown()


if __name__ == "__main__":
    mpc.run(main())
