"""``python -m models``: train models by recipe."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from models.names import NAMES, OWN, SENSORS, TEXTS, UNTRAINED
from models.speech.corpus.command import add as add_corpus
from models.speech.corpus.command import run as make_corpus
from models.zoo import RECIPES, find

EXAMPLES = """examples:
  python -m models train digits                        about 80 minutes on one core, into runs/digits
  python -m models train digits --minutes 300          longer training, better model
  python -m models train digits --resume               continue after a stop
  python -m models train digits --everybody --warm runs/digits/best.pt --folder runs/last --minutes 15 --rate 5e-4
  python -m models train forecast-universal --minutes 30
  python -m models train sensors --data plant.csv --targets pressure,flow --horizon 24 --folder runs/plant
  python -m models corpus english --hours 60           hours of synthetic speech, into ~/.cache/streamer/corpus
  python -m models zoo characters --minutes 5
  python -m models.speech.whisper whisper/base english -o begin.pt
  python -m models train english --warm begin.pt       hours in the background; --resume continues after a stop
  python -m models train english --warm runs/english/best.pt --folder runs/last --share speechocean=.45 --rate 1e-4
  python -m models train librispeech --corpus ~/LibriSpeech --threads 16
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m models", description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train a recipe")
    train.add_argument("recipe", help=", ".join(NAMES))
    train.add_argument("--corpus", type=Path, help="folder of the corpus, for recipes that need one")
    train.add_argument("--folder", type=Path, help="folder of the run (default runs/RECIPE)")
    train.add_argument("--resume", action="store_true", help="continue from the folder's train.ckpt")
    train.add_argument("--warm", type=Path, help="start from this checkpoint's weights, where their shapes match")
    train.add_argument("--everybody", action="store_true", help="train on the development speakers, too: a last stage")
    train.add_argument("--share", type=_share, action="append", default=[], metavar="SOURCE=SHARE",
                       help="share of a source's examples; the others keep their proportions")  # fmt: skip
    train.add_argument("--minutes", type=float, help="budget of training time")
    train.add_argument("--steps", type=int, help="budget in steps instead")
    train.add_argument("--rate", type=float, help="highest learning rate")
    train.add_argument("--threads", type=int)
    train.add_argument("--seed", type=int, default=1, help="of a forecaster's initial weights and examples")
    train.add_argument("--family", choices=("gru", "lstm", "rnn", "convolution"), default="gru",
                       help="architecture of a forecaster's network")  # fmt: skip
    own = train.add_argument_group("sensors", "a table of one plant's sensors: a column of times, columns of numbers")
    own.add_argument("--data", type=Path, metavar="FILE", help="CSV with a header, or NDJSON; may be gzipped")
    own.add_argument("--time", metavar="COLUMN", help="default: ts, time, timestamp, date or datetime")
    own.add_argument("--targets", type=_names, default=(), metavar="A,B", help="columns to forecast (default: all)")
    own.add_argument("--without", type=_names, default=(), metavar="A,B", help="columns to leave out")
    own.add_argument("--horizon", type=int, default=24, help="rows ahead (default: %(default)s)")
    zoo = commands.add_parser("zoo", help="train a small example of an architecture")
    zoo.add_argument("recipe", help=", ".join(RECIPES), choices=RECIPES, metavar="NAME")
    zoo.add_argument("--folder", type=Path, help="folder of the run (default runs/zoo/NAME)")
    zoo.add_argument("--minutes", type=float, help="budget of training time")
    pictures = commands.add_parser("pictures", help="draw the pictures of docs/ctc.md and docs/attention.md")
    pictures.add_argument("folder", type=Path, nargs="?", default=Path("docs/pictures"), help="default %(default)s")
    corpus = commands.add_parser("corpus", help="make a training corpus: hours of background work, resumable")
    add_corpus(corpus)
    options = parser.parse_args(arguments)
    if options.command == "corpus":
        return make_corpus(options)
    if options.command == "pictures":
        from models.training.pictures import draw

        for path in draw(options.folder):
            print(path)
        return 0
    if options.command == "zoo":
        return small(options)
    folder = options.folder or Path("runs") / options.recipe
    if options.recipe in UNTRAINED:
        return untrained(options.recipe, folder)
    if options.recipe in OWN:
        return sensors(options, folder)
    if options.recipe in TEXTS:
        return texts(options, folder)
    return forecaster(options, folder) if options.recipe in SENSORS else run(options, folder)


def small(options: argparse.Namespace) -> int:
    """Train a recipe of the zoo. Returns the exit status: 2 without its data."""
    (train,) = find(RECIPES[options.recipe])
    try:
        best = train(options.folder or Path("runs") / "zoo" / options.recipe, options.minutes)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    if best is None:  # a recipe of several models, which has printed their export commands
        return 0
    scores = best.with_name("scores.json")
    print(f"python -m export {best} -o models/zoo/trained/{options.recipe}.onnx --scores {scores}")
    return 0


def untrained(name: str, folder: Path) -> int:
    """Write the checkpoint of a model without trained weights."""
    from models.forecast.online import Online, OnlineConfig, info
    from models.training.checkpoint import save

    config = OnlineConfig()
    save(folder / "best.pt", Online(config), info(name, config))
    print(f"{name} learns while it runs: python -m export {folder / 'best.pt'} -o {name}.onnx")
    return 0


def forecaster(options: argparse.Namespace, folder: Path) -> int:
    from models.forecast.forecasting import ForecastTrainingOptions
    from models.shipped.forecast import train

    given = {name: getattr(options, name) for name in ("minutes", "threads", "rate")}
    settings = ForecastTrainingOptions(**{name: value for name, value in given.items() if value is not None})
    try:
        best = train(folder, settings, options.family, seed=options.seed, warm=options.warm, resume=options.resume)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"python -m export {best} -o {options.recipe}.onnx")
    return 0


def sensors(options: argparse.Namespace, folder: Path) -> int:
    """Train on the user's own table. Returns the exit status: 1 if the leak check fails, 2 if the table or a file is
    missing or unusable."""
    if options.data is None:
        print("sensors needs --data: a table with a column of times", file=sys.stderr)
        return 2
    from models.forecast.plan import Wanted
    from models.forecast.recipe import train
    from models.forecast.windows import WindowOptions

    given = {name: getattr(options, name) for name in ("minutes", "steps", "threads", "rate")}
    settings = WindowOptions(**{name: value for name, value in given.items() if value is not None})
    try:
        wanted = Wanted(options.horizon, options.targets, options.without, options.family)
        sound = train(
            options.data, folder, wanted, settings, time=options.time, seed=options.seed, resume=options.resume
        )
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"card: {folder / 'card.md'}")
    if not sound:
        print("the leak check fails: the card says where", file=sys.stderr)
        return 1
    print(f"python -m export {folder / 'best.pt'} -o {folder.name}.onnx")
    return 0


def texts(options: argparse.Namespace, folder: Path) -> int:
    """Train the model of punctuation and capitals."""
    from models.shipped.written import train
    from models.speech.data import data_folder

    try:
        best = train(
            folder, options.minutes, options.steps or 0, data=data_folder(), resume=options.resume, rate=options.rate,
            warm=options.warm,
        )  # fmt: skip
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"python -m export {best} -o {options.recipe}.onnx --scores {best.with_name('scores.json')}")
    return 0


def _names(said: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in said.split(",") if name.strip())


def _share(said: str) -> tuple[str, float]:
    name, _, share = said.partition("=")
    return name, float(share)


def run(options: argparse.Namespace, folder: Path) -> int:
    import lightning

    from models.recipes import make, set_normaliser
    from models.speech.acoustic import Acoustic, parameters
    from models.speech.ctc import CtcTraining
    from models.speech.mixture import Mixture, reshare
    from models.training.budget import fit
    from models.training.card import leave
    from models.training.checkpoint import load, warm_start

    lightning.seed_everything(1, verbose=False)
    try:
        recipe = make(options.recipe, options.corpus, options.everybody)
        reshare(recipe.sources, dict(options.share))
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    given = {name: getattr(options, name) for name in ("minutes", "steps", "threads", "rate")}
    changes = {name: value for name, value in given.items() if value is not None}
    settings = dataclasses.replace(recipe.options, **changes)
    model = Acoustic(recipe.config)
    set_normaliser(model, recipe.sources[0].utterances)
    if options.warm:
        print(f"{warm_start(model, options.warm)} tensors from {options.warm}")
    print(f"{recipe.name}: {parameters(model) / 1e6:.2f} M parameters")
    training = CtcTraining(model, settings, recipe.augmentation, recipe.evaluate, folder, recipe.description())
    batches = Mixture(
        recipe.sources, recipe.augmentation, recipe.noise, sample_rate=recipe.config.sample_rate, hop=model.hop,
        seconds=recipe.seconds, batches=recipe.batches, progress=lambda: training.progress, limit=recipe.limit,
        spell=recipe.spell, hearing=recipe.hearing,
    )  # fmt: skip
    try:
        fit(training, batches, resume=options.resume)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    best, info = load(folder / ("last.pt" if options.everybody else "best.pt"))
    print(f"card: {leave(folder, best, info, recipe.dev)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
