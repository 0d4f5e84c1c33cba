"""CrypTen: 2 parties as processes, passive, secret model.

Its trusted first party makes triples on the spot, free of charge: the online phase only.  With `--dealer` a third
process makes them, on demand: both phases.
"""

import logging
import sys
import types
from typing import Any

import numpy as np
from serving import answer, network, random_input, requests, summary, timed, training_summary

DEALER = "--dealer" in sys.argv
PARTIES = 2


def import_crypten() -> Any:
    """CrypTen 0.4.1 beside today's PyTorch: its ONNX reader asks for modules that have moved; no model is read here."""
    import torch.onnx

    for name in ("symbolic_registry", "_internal.registration"):
        stand_in = types.ModuleType(f"torch.onnx.{name}")
        stand_in.registry = None
        sys.modules.setdefault(stand_in.__name__, stand_in)
    for name in ("OperatorExportTypes",):
        if not hasattr(torch.onnx, name):
            setattr(torch.onnx, name, types.SimpleNamespace(ONNX=0, ONNX_ATEN_FALLBACK=3))
    if not hasattr(torch.onnx, "register_custom_op_symbolic"):
        torch.onnx.register_custom_op_symbolic = lambda *_, **__: None
    import crypten

    logging.getLogger().setLevel(logging.ERROR)
    if DEALER:
        crypten.cfg.mpc.provider = "TTP"
    return crypten


def build(crypten: Any, torch: Any, name: str) -> Any:
    """The network from CrypTen's own layers, with the weights that everybody takes."""
    _, layers, weights = network(name)
    nn, made = crypten.nn, []
    for layer in layers:
        if layer.kind == "conv":
            inputs, outputs, kernel, stride, padding = layer.sizes
            made.append(nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding))
        elif layer.kind == "FC":
            made.append(nn.Linear(*layer.sizes))
        elif layer.kind == "MaxPool":
            made.append(nn.MaxPool2d(layer.sizes[0], stride=layer.sizes[1]))
        else:
            made.append({"ReLU": nn.ReLU, "sigmoid": nn.Sigmoid, "flatten": lambda: nn.Flatten(axis=1)}[layer.kind]())
        for part in ("weight", "bias"):
            if f"{layer.name}.{part}" in weights:
                made[-1].set_parameter(part, torch.nn.Parameter(torch.from_numpy(weights[f"{layer.name}.{part}"])))
    return nn.Sequential(*made).encrypt(src=0)


def joined(rank: int, rendezvous: str) -> tuple[Any, Any]:
    """CrypTen and torch in a process that is to meet the others."""
    import os

    os.environ.update(WORLD_SIZE=str(PARTIES), RANK=str(rank), RENDEZVOUS=rendezvous, DISTRIBUTED_BACKEND="gloo")
    crypten = import_crypten()
    import torch

    torch.set_num_threads(1)
    return crypten, torch


def dealer(rendezvous: str) -> None:
    """Make triples when the first party asks, until it is killed."""
    crypten, _ = joined(PARTIES, rendezvous)
    crypten.mpc.provider.TTPServer()


def party(rank: int, rendezvous: str, inbox: Any, outbox: Any) -> None:
    """Serve requests until there is None."""
    crypten, torch = joined(rank, rendezvous)
    crypten.init()
    while (request := inbox.get()) is not None:
        if "train" in request:
            reply = trained(crypten, torch, request)
            if rank == 0:
                outbox.put(reply)
            continue
        x = torch.from_numpy(random_input(network(request["network"])[0], request["batch"]))
        model = build(crypten, torch, request["network"])

        def run(x: Any = x, model: Any = model) -> np.ndarray:
            return model(crypten.cryptensor(x, src=0)).get_plain_text().numpy()

        try:
            times, result = timed(run, request["repeat"], lambda seconds: slowest(crypten, torch, seconds))
            reply = summary(request["network"], request["batch"], times, result)
        except Exception as error:
            reply = {"failed": f"{type(error).__name__}: {error}"[:300]}
        if rank == 0:
            outbox.put(reply)


def trained(crypten: Any, torch: Any, request: dict) -> dict[str, Any]:
    """Time steps of training on secret rows, targets and weights; the loss is never opened."""
    from torch_peer import Step

    plain = Step(request["network"], request["train"], request["batch"])
    model = build(crypten, torch, request["network"]).train()
    losses = {"mse": crypten.nn.MSELoss, "one_vs_all": crypten.nn.BCEWithLogitsLoss}
    loss, number = losses[request["train"]](), plain.y.shape[1]
    optimizer = crypten.optim.SGD(model.parameters(), lr=plain.rate * plain.y.numel())  # its losses are means

    def step() -> None:
        x, y = crypten.cryptensor(plain.x, src=0), crypten.cryptensor(plain.y, src=0)
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    try:
        times, _ = timed(step, request["repeat"], lambda seconds: slowest(crypten, torch, seconds))
        expected = [plain() for _ in range(len(times) + 1)][-1]
        ended = [*model.parameters()][-1].get_plain_text().numpy().reshape(number)
        return training_summary(times, plain.begun, ended, expected)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"[:300]}


def slowest(crypten: Any, torch: Any, seconds: float) -> float:
    """Both parties must run equally often."""
    took, group = torch.tensor(seconds), crypten.communicator.get().main_group
    torch.distributed.all_reduce(took, torch.distributed.ReduceOp.MAX, group)
    return float(took)


def main() -> None:
    import tempfile

    import torch.multiprocessing as processes

    context = processes.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        meeting, outbox = f"file://{folder}/meet", context.Queue()
        inboxes = [context.Queue() for _ in range(PARTIES)]
        started = [
            context.Process(target=party, args=(rank, meeting, inbox, outbox), daemon=True)
            for rank, inbox in enumerate(inboxes)
        ]
        if DEALER:
            context.Process(target=dealer, args=(meeting,), daemon=True).start()
        for one in started:
            one.start()
        for request in requests():
            for inbox in inboxes:
                inbox.put(request)
            answer(outbox.get())
        for inbox in inboxes:
            inbox.put(None)
        for one in started:
            one.join(10)


if __name__ == "__main__":
    main()
