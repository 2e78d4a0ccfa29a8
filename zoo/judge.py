"""The judge: a small classifier of every visible attribute, trained on renderer truth passed through the VAE."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import nn

from zoo import sampling
from zoo.prompts import held_out
from zoo.render import Sample, Scene
from zoo.train import data, loop
from zoo.train.export import MODELS
from zoo.worlds import World, world

COUNT, STEPS, BATCH, RATE = 14_000, 1_600, 64, 3e-3
CHECKED = ("shape", "colour", "style", "background")


def classes(where: World) -> dict[str, tuple[str, ...]]:
    """Names of the classes of each head, in order."""
    return {
        "shape": tuple(where.shapes),
        "colour": tuple(where.colours),
        "background": tuple(where.backgrounds),
        "style": tuple(where.styles),
        "count": ("one", "two"),
    }


def truth(where: World, scenes: Sequence[Scene]) -> dict[str, torch.Tensor]:
    """Class numbers [N] of each attribute; shape and colour are those of the single or left object."""

    def of(scene: Scene) -> dict[str, str]:
        left = min(scene.things, key=lambda t: t.place[0])
        names = {"shape": left.shape, "colour": left.colour, "background": scene.background, "style": scene.style}
        return names | {"count": ("one", "two")[len(scene.things) - 1]}

    rows = [of(s) for s in scenes]
    return {head: torch.tensor([names.index(r[head]) for r in rows]) for head, names in classes(where).items()}


class Network(nn.Module):
    """Four strided convolutions over pixels and their coordinates, average and maximum pooling, one head each."""

    def __init__(self, heads: dict[str, tuple[str, ...]]) -> None:
        super().__init__()
        widths = (5, 32, 64, 96, 128)
        self.body = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, 2 if i < 3 else 1, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
                nn.Conv2d(b, b, 3, 1, 1, groups=b, bias=False), nn.Conv2d(b, b, 1, bias=False), nn.BatchNorm2d(b),
            )
            for i, (a, b) in enumerate(pairwise(widths))
        )  # fmt: skip
        self.hidden = nn.Linear(2 * widths[-1], 128)
        self.heads = nn.ModuleDict({name: nn.Linear(128, len(names)) for name, names in heads.items()})

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Features [N, 128] of pictures [N, 3, H, W] in 0..1."""
        n, _, h, w = pictures.shape
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        place = torch.stack([rows, columns]).to(pictures).expand(n, 2, h, w)
        x = torch.cat([pictures * 2 - 1, place], 1)
        for block in self.body:
            x = F.relu(block(x))
        return F.relu(self.hidden(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)))

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.features(pictures)
        return {name: head(features) for name, head in self.heads.items()}


class Judge:
    """A trained, frozen judge of one world."""

    def __init__(self, where: World, network: Network) -> None:
        self.world, self.network, self.names = where, network.eval().requires_grad_(False), classes(where)

    @classmethod
    def load(cls, where: World | str) -> Judge:
        where = world(where) if isinstance(where, str) else where
        path = judge_path(where.name)
        if not path.exists():
            raise FileNotFoundError(f"no judge at {path}: run `python -m zoo.judge --train --world {where.name}` first")
        network = Network(classes(where))
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()})
        return cls(where, network)

    @torch.no_grad()
    def __call__(self, pictures: torch.Tensor, chunk: int = 500) -> dict[str, torch.Tensor]:
        """Class numbers [N] of each attribute of pictures [N, 3, 64, 64] in 0..1."""
        parts = [self.network(p) for p in pictures.split(chunk)]
        return {name: torch.cat([p[name] for p in parts]).argmax(1) for name in self.names}

    @torch.no_grad()
    def features(self, pictures: torch.Tensor, chunk: int = 500) -> torch.Tensor:
        """Features [N, 128], for distances between sets of pictures."""
        return torch.cat([self.network.features(p) for p in pictures.split(chunk)])

    def is_class(self, read: dict[str, torch.Tensor], **wanted: str) -> torch.Tensor:
        """Where all ``wanted`` attributes were read (bool [N])."""
        hits = [read[head] == self.names[head].index(name) for head, name in wanted.items()]
        return torch.stack(hits).all(0)


def judge_path(name: str) -> Path:
    return MODELS / name / "judge.safetensors"


@torch.no_grad()
def _seen_pictures(where: World, vae: AutoencoderKL, made: list[Sample]) -> torch.Tensor:
    """Pictures as the VAE draws them, from slightly disturbed latents; uint8 [N, 3, 64, 64]."""
    path = loop.build_dir(where.name) / "judge_pictures.pt"
    if state := loop.resume(path):
        return state["pictures"]
    images, seen = data.training_pictures(where)[: len(made)], []
    generator = torch.Generator().manual_seed(5)
    for i in range(0, len(made), 250):
        z = vae.encode(data.to_tensor(images[i : i + 250])).latent_dist.mean
        # Sampled latents are never quite those of a picture; a quarter of their deviation is a rough one.
        strength = 0.25 * torch.rand(len(z), 1, 1, 1, generator=generator).to(z) / vae.config.scaling_factor
        decoded = vae.decode(z + strength * torch.randn(z.shape, generator=generator).to(z)).sample
        seen.append(((decoded / 2 + 0.5).clamp(0, 1) * 255).round().byte())
    loop.save(path, {"pictures": torch.cat(seen)})
    return torch.cat(seen)


def _augmented(pictures: torch.Tensor) -> torch.Tensor:
    """Shifts of up to two pixels and mild noise."""
    down, right = torch.randint(-2, 3, (2,)).tolist()
    padded = F.pad(pictures, (2, 2, 2, 2), mode="replicate")[:, :, 2 + down : 66 + down, 2 + right : 66 + right]
    return (
        padded + 0.03 * torch.rand(len(pictures), 1, 1, 1, device=pictures.device) * torch.randn_like(padded)
    ).clamp(0, 1)


def train(where: World, vae: AutoencoderKL) -> Judge:
    """Train a judge, print its accuracy on pictures kept back, and save it in half precision."""
    made = data.training_samples(where)[: loop.scaled(COUNT)]
    seen = _seen_pictures(where, vae.to(loop.DEVICE), made).to(loop.DEVICE)
    labels = {h: v.to(loop.DEVICE) for h, v in truth(where, [s.scene for s in made]).items()}
    torch.manual_seed(where.seed)
    network, steps = Network(classes(where)).to(loop.DEVICE), loop.scaled(STEPS)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-3)
    kept_back, started = min(1000, len(made) // 4), time.time()

    def loss_of(pick: torch.Tensor) -> torch.Tensor:
        out = network(_augmented(seen[pick].float() / 255))
        each = [F.cross_entropy(out[h].float(), labels[h][pick], label_smoothing=0.02) for h in out]
        return torch.stack(each).sum()

    fast = loop.bf16_is_faster(lambda: loss_of(torch.arange(min(BATCH, len(made)))).backward())
    for step in range(steps):
        loop.set_rate(optimiser, loop.warm_cosine(step, steps, RATE))
        with loop.autocast(fast):
            loss = loss_of(torch.randint(len(made) - kept_back, (BATCH,)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 250 == 0 or step == steps - 1:
            print(f"judge {step} loss {loss.item():.3f} bf16 {fast} {time.time() - started:.0f} s", flush=True)
    path = judge_path(where.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}, path)
    judge = Judge.load(where)
    read = judge(seen[-kept_back:].cpu().float() / 255)
    right = {h: (read[h] == labels[h][-kept_back:].cpu()).float().mean().item() for h in read}
    print("judge, pictures kept back: " + " · ".join(f"{h} {v:.1%}" for h, v in right.items()))
    return judge


def accuracy(judge: Judge, pictures: torch.Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
    """Share of pictures whose attribute is the scene's, for each checked attribute."""
    read, right = judge(pictures), truth(judge.world, scenes)
    return {h: (read[h] == right[h]).float().mean().item() for h in CHECKED}


def evaluate(
    folder: Path,
    where: World,
    n: int = 500,
    guidance: float = sampling.GUIDANCE,
    steps: int = sampling.STEPS,
    seed: int = 0,
    fast: bool = False,
) -> dict[str, float]:
    """Sample ``n`` held-out captions from a pipeline folder and print what share of them the judge reads right."""
    made = held_out(where, n, plain=True)
    how = {"steps": steps, "guidance": guidance, "seed": seed, "fast": fast}
    drawn = sampling.pictures(sampling.load(folder).to(loop.DEVICE), [s.caption for s in made], **how)
    figures = accuracy(Judge.load(where), drawn, [s.scene for s in made])
    print(f"judge of {folder.name}, {len(made)} held-out captions, guidance {guidance:g}, {steps} steps: ", end="")
    print(" · ".join(f"{h} {v:.1%}" for h, v in figures.items()), flush=True)
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="zoo.judge", description=__doc__)
    parser.add_argument("name", nargs="?", default="base", help="model of the zoo, or the path of a pipeline folder")
    parser.add_argument("--world", default="tiny")
    parser.add_argument("--train", action="store_true", help="train the judge itself")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float, default=sampling.GUIDANCE)
    parser.add_argument("--steps", type=int, default=sampling.STEPS)
    parser.add_argument("--fast", action="store_true", help="bf16 arithmetic")
    given = parser.parse_args(arguments)
    sampling.quiet()
    where = world(given.world)
    if given.train:
        from zoo.train import vae

        base = MODELS / where.name / "base"
        train(where, sampling.load(base).vae if base.is_dir() else vae.train(where))
        return
    folder = Path(given.name) if Path(given.name).is_dir() else MODELS / where.name / given.name
    evaluate(folder, where, given.n, given.guidance, given.steps, given.seed, given.fast)


if __name__ == "__main__":
    main()
