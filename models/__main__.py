"""``python -m models``: train acoustic models by recipe."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

EXAMPLES = """examples:
  python -m models train digits                        about 80 minutes on one core, into runs/digits
  python -m models train english-small --minutes 300   more patience, better model
  python -m models train digits --resume               go on where it was stopped
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m models", description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train a recipe")
    train.add_argument("recipe")
    train.add_argument("--folder", type=Path, help="where the run goes (default runs/RECIPE)")
    train.add_argument("--resume", action="store_true", help="go on from the folder's train.ckpt")
    train.add_argument("--minutes", type=float, help="budget of training time")
    train.add_argument("--steps", type=int, help="budget in steps instead")
    train.add_argument("--threads", type=int)
    options = parser.parse_args(arguments)

    from models.recipes.speech import RECIPES, set_normaliser

    if options.recipe not in RECIPES:
        print(f"no recipe {options.recipe!r}; there are: {', '.join(RECIPES)}", file=sys.stderr)
        return 2
    import lightning

    from models.acoustic import Acoustic, parameters
    from models.mixture import Mixture
    from models.training import Training, fit

    lightning.seed_everything(1, verbose=False)
    recipe = RECIPES[options.recipe]()
    changes = {name: getattr(options, name) for name in ("minutes", "steps", "threads") if getattr(options, name)}
    settings = dataclasses.replace(recipe.options, **changes)
    model = Acoustic(recipe.config)
    set_normaliser(model, recipe.sources[0].utterances)
    print(f"{recipe.name}: {parameters(model) / 1e6:.2f} M parameters")
    folder = options.folder or Path("runs") / recipe.name
    training = Training(model, settings, recipe.augmentation, recipe.evaluate, folder, recipe.description())
    batches = Mixture(
        recipe.sources, recipe.augmentation, recipe.noise, sample_rate=recipe.config.sample_rate, hop=model.hop,
        seconds=recipe.seconds, batches=recipe.batches, progress=lambda: training.progress, limit=recipe.limit,
    )  # fmt: skip
    fit(training, batches, resume=options.resume)
    return 0


if __name__ == "__main__":
    sys.exit(main())
