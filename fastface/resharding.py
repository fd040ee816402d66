"""A task spread over processes <-> whole tensors by name, as checkpoints keep them.

Everything but the rows of a ClassRows is the same on every process. Those rows are written as one matrix in class
order, and so are the optimizer's moments of them; reading takes the rows that belong to this process now, so a run may
go on with another number of processes.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from fastface import dist
from fastface.heads.class_rows import ClassRows


def whole_model(task: nn.Module) -> dict[str, Tensor]:
    """Return the task's tensors by name, on process 0 with the rows of all processes. All processes must call it."""
    state = task.state_dict()
    for prefix, head in _heads(task):
        state[f"{prefix}weight"] = dist.whole_rows(head.weight.data)
    return state


def whole_bytes(task: nn.Module) -> int:
    """Return the size of the task's parameters, those of other processes' rows included."""
    total = sum(p.numel() * p.element_size() for p in task.parameters())
    for _, head in _heads(task):
        others = head.num_classes * head.sub_centres - len(head.weight)
        total += others * head.weight.shape[1] * head.weight.element_size()
    return total


def restore_model(task: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Load whole tensors into a task, each process taking its own rows.

    Raises:
        ValueError: where a matrix of centres has not the rows of this task's identities.
    """
    mine = dict(saved)
    for prefix, head in _heads(task):
        name = f"{prefix}weight"
        if name in mine:
            mine[name] = _own(mine[name], head, name)
    task.load_state_dict(mine)


def whole_optimizer(optimizer: torch.optim.Optimizer, task: nn.Module) -> dict[str, Tensor]:
    """Return the optimizer's tensors by parameter: `backbone.fc.weight/momentum_buffer`. All processes must call it."""
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    heads = {id(head.learning): (f"{prefix}weight", head) for prefix, head in _heads(task)}
    flat: dict[str, Tensor] = {}
    for parameter, values in optimizer.state.items():
        name, head = heads.get(id(parameter), (names[id(parameter)], None))
        for key, value in values.items():
            if value is None:
                continue
            value = torch.as_tensor(value)
            if head is not None and value.shape == parameter.shape:
                if head.sampled:  # a copy of some rows of head.moments
                    continue
                value = dist.whole_rows(value)
            flat[f"{name}/{key}"] = value
    for name, head in heads.values():
        flat |= {f"{name}/{key}": dist.whole_rows(rows) for key, rows in head.moments.items()}
    return flat


def restore_optimizer(optimizer: torch.optim.Optimizer, task: nn.Module, flat: Mapping[str, Tensor]) -> None:
    """Put whole_optimizer's tensors back; every name must belong to a parameter of the task."""
    parameters = dict(task.named_parameters())
    heads = {f"{prefix}weight": head for prefix, head in _heads(task)}
    for name, value in flat.items():
        owner, _, key = name.rpartition("/")
        if owner not in parameters:
            raise ValueError(f"the checkpoint's optimizer state names {owner!r}, which this model does not have")
        parameter, head = parameters[owner], heads.get(owner)
        if head is not None and value.ndim == 2:
            value = _own(value, head, name)
            if head.sampled:
                head.moments[key] = torch.empty_like(head.weight.data).copy_(value)
                continue
        parameter = parameter if head is None else head.learning
        fused = any(g.get("fused") for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
        # Momenta follow their parameter's device and layout; a fused optimizer wants its step counters there too.
        if value.shape == parameter.shape:
            like = torch.empty_like(parameter)
        else:
            like = torch.empty_like(value, device=parameter.device if fused else None)
        optimizer.state[parameter][key] = like.copy_(value)


def _heads(task: nn.Module) -> Iterator[tuple[str, ClassRows]]:
    for name, module in task.named_modules():
        if isinstance(module, ClassRows):
            yield f"{name}." if name else "", module


def _own(rows: Tensor, head: ClassRows, name: str) -> Tensor:
    if rows.shape[0] != head.num_classes * head.sub_centres:
        raise ValueError(
            f"the checkpoint's {name} has {rows.shape[0]} rows, this run has {head.num_classes} identities with "
            f"{head.sub_centres} centre(s) each: start a new run with model.weights, and task.centres to keep rows"
        )
    return rows[head.first * head.sub_centres : head.last * head.sub_centres]
