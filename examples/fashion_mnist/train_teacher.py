"""Train the teacher: `python -m planish.examples.fashion_mnist.train_teacher`.

With its defaults this is the run that made teacher.safetensors: 24 epochs, about seven minutes on
two cores. Source of the schedule: Smith, Topin, "Super-Convergence" (2018), one cycle; of the label
smoothing: Szegedy et al., "Rethinking the Inception Architecture" (CVPR 2016), section 7.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save as serialize
from torch import Tensor, nn
from torch.nn import functional as F

from planish.datasets import Dataset, fashion_mnist
from planish.ir import PlanishError
from planish.ir.files import write_beside

from .model import ResNet20, accuracy


@dataclass(frozen=True)
class Recipe:
    """How the teacher is trained; stored with the weights.

    Args:
        epochs: Times that each image is seen.
        batch: Images a step.
        peak_rate: Highest learning rate of the cycle, reached at `rise`.
        rise: Share of the steps in which the learning rate rises, 0..1.
        weight_decay: Decay of all weights, batch norm included.
        smoothing: Label smoothing, 0..1.
        shift: Most pixels that an image is shifted, in each direction.
        seed: Seed of the initial weights, the order of the images and the augmentation.
    """

    epochs: int = 24
    batch: int = 256
    peak_rate: float = 0.4
    rise: float = 0.2
    weight_decay: float = 5e-4
    smoothing: float = 0.05
    shift: int = 2
    seed: int = 0


def augment(images: Tensor, shift: int) -> Tensor:
    """Shift each image by up to `shift` pixels and mirror half of them.

    Args:
        images: float32 [n, 1, h, w].
        shift: Most pixels in each direction; what comes in at the edge is 0.

    Returns:
        float32 [n, 1, h, w].
    """
    count, _, height, width = images.shape
    padded = F.pad(images, (shift, shift, shift, shift))
    top = torch.randint(0, 2 * shift + 1, (count,))
    left = torch.randint(0, 2 * shift + 1, (count,))
    mirrored = torch.rand(count) < 0.5
    rows = torch.arange(height)[None] + top[:, None]
    columns = torch.arange(width)[None] + left[:, None]
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    picture = torch.arange(count)[:, None, None]
    return padded[picture, 0, rows[:, :, None], columns[:, None, :]][:, None]


def train(data: Dataset, recipe: Recipe, console: Console) -> nn.Module:
    """Return a trained ResNet20; the same data, recipe and thread count give the same weights."""
    torch.manual_seed(recipe.seed)
    images, labels = torch.tensor(data.train.images), torch.tensor(data.train.labels)
    model = ResNet20(len(data.classes))
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (torch's stub)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.peak_rate,
        momentum=0.9,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    steps, last = len(images) // recipe.batch, 0.0
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.peak_rate, total_steps=recipe.epochs * steps, pct_start=recipe.rise
    )
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=recipe.epochs * steps, epoch=1, loss=0.0)
        for epoch in range(1, recipe.epochs + 1):
            model.train()
            for chosen in torch.randperm(len(images))[: steps * recipe.batch].split(recipe.batch):
                x = augment(images[chosen].float() / 255, recipe.shift)
                logits = model(x.contiguous(memory_format=torch.channels_last))
                loss = F.cross_entropy(logits, labels[chosen], label_smoothing=recipe.smoothing)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                last = loss.item()
                progress.update(task, advance=1, epoch=epoch, loss=last)
            progress.console.print(f"epoch {epoch} of {recipe.epochs}: loss {last:.4f}")
    return model


def save(model: nn.Module, out: Path, notes: dict[str, str]) -> None:
    """Write the weights as safetensors with `notes` as metadata."""
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    write_beside(out, serialize(weights, metadata=notes))


def main(
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("teacher.safetensors"),
    epochs: Annotated[int, typer.Option(min=1, help="Times that each image is seen.")] = 24,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and augmentation.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the processor.")] = 2,
) -> None:
    """Train a ResNet-20 on Fashion-MNIST and write its weights."""
    console = Console()
    torch.set_num_threads(threads)
    recipe = Recipe(epochs=epochs, seed=seed)
    try:
        data = fashion_mnist()
    except PlanishError as error:
        console.print(f"[red]error[/red] {error}")
        raise typer.Exit(2) from error
    console.print(f"{data.name} from {data.source}: {len(data.train.labels)} images")
    model = train(data, recipe, console)
    test = accuracy(model, torch.tensor(data.test.images), torch.tensor(data.test.labels))
    notes = {
        "accuracy": f"{test:.4f}",
        "data": data.name,
        "recipe": json.dumps(asdict(recipe)),
        "threads": str(threads),
        "torch": torch.__version__,
    }
    save(model, out, notes)
    console.print(f"test accuracy {test:.2%}; wrote {out}")


if __name__ == "__main__":
    typer.run(main)
