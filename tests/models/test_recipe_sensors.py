"""The recipe for one's own table: from a CSV to a model that is exported, judged, run, and shown by the command."""

from __future__ import annotations

import contextlib
import io
import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry

import models
from export.build import build
from models.__main__ import main
from models.forecast import recipe as sensors
from models.forecast.backtest import run
from models.forecast.multivariate import Multivariate, MultivariateConfig, Scaling
from models.forecast.network import NetworkConfig
from models.forecast.plan import Plan, Wanted
from models.forecast.table import needed, read
from models.forecast.windows import WindowOptions
from streamer.engine.engine import Engine
from streamer.engine.model import Model
from streamer.engine.proof import judge_file
from streamer.metrics import Metrics
from streamer.sensors.columns import ReadingBatch
from streamer.sensors.host import Sensors
from streamer.settings import Settings
from streamer.tasks import Forecast, create
from tests.cli.command import one_line, streamer
from tests.models import plant

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]  # Lightning's own
ROWS, STEPS = 1500, 60
small = partial(WindowOptions, batch=16, length=64, batches=20)


@dataclass
class Trained:
    data: Path
    folder: Path
    said: str

    @property
    def card(self) -> str:
        return (self.folder / "card.md").read_text()

    @property
    def onnx(self) -> Path:
        """Built once."""
        path = self.folder / "plant.onnx"
        if not path.exists():
            module, info = models.load(self.folder / "best.pt")
            build(module, info, path, max_batch=8, long_chunks=200)
        return path

    def plan(self) -> Plan:
        return Plan(read(self.data, None, print), Wanted(plant.HORIZON))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("plant")
    data, told = plant.write(folder / "plant.csv", ROWS), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        patch.setattr(sensors, "WindowOptions", small)
        command = ["train", "sensors", "--data", str(data), "--horizon", str(plant.HORIZON), "--steps", str(STEPS)]
        assert main([*command, "--folder", str(folder / "run")]) == 0
    return Trained(data, folder / "run", told.getvalue())


# -- training --------------------------------------------------------------------------------------------------------


def test_what_leads_is_learnt_and_the_card_says_it(trained: Trained) -> None:
    model, info = models.load(trained.folder / "best.pt")
    assert isinstance(model, Multivariate)
    assert model.config.variables == model.config.targets == ("outflow", "inflow")
    assert (info["name"], info["task"], info["input"]["step_seconds"]) == ("plant", "forecast", 3600.0)
    rows = {cells[0]: cells[1:] for line in trained.card.splitlines() if (cells := line.strip("| ").split(" | "))}
    mse, _, naive, *_, mase, inside = (float(cell.rstrip("%")) for cell in rows["outflow"])
    assert mse < 0.75 * naive
    assert mase < 0.85
    assert 80 < inside < 98
    assert f"{len(trained.plan().parts['test'].origins(plant.HORIZON))} forecasts, after each row" in trained.card
    assert info["scores"]["test"]["mse"] == pytest.approx(float(rows["all, in deviations"][0]), rel=1e-3)
    assert info["scores"]["test"]["mse"] < info["scores"]["test"]["persistence_mse"]
    assert "`dead` was left out: it is 7.5 in all training rows." in trained.card
    assert "`state` was left out: it holds no numbers." in trained.card
    assert "1 rows with the time of an earlier row were left out." in trained.card
    assert "rows were missing and are masked" in trained.card
    assert "python -m export" in trained.said
    assert (trained.folder / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_the_leak_check_ran_and_its_outcome_is_in_the_card(trained: Trained) -> None:
    checks = trained.card.split("## Leak check")[1].split("##")[0]
    assert checks.count("| holds |") == 6
    assert "FAILS" not in checks
    assert re.search(r"cuts behind rows \d+, \d+", checks)
    assert "6 and 6 rows between the parts" in checks


def test_a_model_that_cheats_is_told_of(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    every = property(lambda plan: Scaling.of(plan.table.values[:, plan.columns]))  # the test rows, too
    monkeypatch.setattr(Plan, "scaling", every)
    monkeypatch.setattr(sensors, "WindowOptions", small)
    command = ["train", "sensors", "--data", str(trained.data), "--horizon", "6", "--steps", "2"]
    assert main([*command, "--folder", str(tmp_path)]) == 1
    assert "the leak check fails" in capsys.readouterr().err
    card = (tmp_path / "card.md").read_text()
    assert "do not trust the scores" in card
    assert "| columns and scaling are of the training rows alone | **FAILS** |" in card


def test_a_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sensors, "WindowOptions", partial(small, batches=2))
    data = plant.write(tmp_path / "plant.csv", needed(plant.HORIZON) + 20, gaps=False, extra=False)
    command = ["train", "sensors", "--data", str(data), "--horizon", "6", "--targets", "outflow", "--family", "lstm"]
    command += ["--folder", str(tmp_path / "run"), "--steps"]
    assert main([*command, "2", "--resume"]) == 2
    assert "nothing to resume" in capsys.readouterr().err
    assert main([*command, "2"]) == 0
    assert main([*command, "4", "--resume"]) == 0
    assert main([*command, "6", "--resume", "--horizon", "5"]) == 2
    assert "other columns, horizon or family" in capsys.readouterr().err
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [2, 4]
    model, _ = models.load(tmp_path / "run" / "best.pt")
    assert (model.config.targets, model.config.network.family) == (("outflow",), "lstm")


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("a,b\n1,2\n", [], "has no column of times among a, b: --time says which it is"),
        ("time,a,b\n", [], "has no column of numbers"),
        ("time,word\n2026-01-01,x\n2026-01-02,y\n", [], "has no column of numbers"),
        (
            "time,a,b\n2026-01-01,1,2\n2026-01-02,2,4\n",
            [],
            "2 rows are too few: 300 are needed to forecast 6 steps ahead",
        ),
        ("time,a,b\n2026-01-01,1,2\n", ["--time", "when"], "has no column 'when': there are time, a, b"),
        ("", [], "is empty"),
        (None, [], "no such file"),
    ],
)
def test_a_table_that_is_no_good_is_told_of(
    text: str | None, arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "plant.csv"
    if text is not None:
        data.write_text(text)
    command = ["train", "sensors", "--data", str(data), "--horizon", "6", "--folder", str(tmp_path / "run")]
    assert main([*command, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_mistakes_of_the_command_line_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = plant.write(tmp_path / "plant.csv", 600)
    for arguments, message in (
        ([], "sensors needs --data"),
        (["--data", str(data), "--targets", "power"], "has no column 'power': there are outflow, inflow, dead"),
        (["--data", str(data), "--targets", "dead"], "can't forecast what can't be learnt: dead is 7.5"),
        (["--data", str(data), "--without", "inflow"], "two are needed"),
        (["--data", str(data), "--horizon", "0"], "--horizon is 0"),
        (["--data", str(data), "--horizon", "200"], "are needed to forecast 200 steps ahead"),
    ):
        assert main(["train", "sensors", "--folder", str(tmp_path / "run"), *arguments]) == 2
        assert message in capsys.readouterr().err


# -- the model -------------------------------------------------------------------------------------------------------


def test_any_split_gives_the_same_and_the_configuration_comes_back() -> None:
    torch.manual_seed(0)
    config = MultivariateConfig(("a", "b", "c"), ("c", "a"), NetworkConfig(plain=9, targets=2, hidden=8, horizon=5))
    assert MultivariateConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    model = Multivariate(config).eval()
    torch.nn.init.normal_(model.network.head.weight, std=0.1)
    x = rows(np.cumsum(np.random.default_rng(0).standard_normal((80, 3)), 0), 0.2)
    with torch.no_grad():
        whole, end = model(x, model.initial_state(1))
        first, state = model(x[:, :33], model.initial_state(1))
        second, _ = model(x[:, 33:], state)
    assert whole["quantiles"].shape == (1, 80, 2, 5, 7)
    for name in whole:
        assert torch.allclose(torch.cat([first[name], second[name]], 1), whole[name], atol=1e-4)
    assert {name: t.shape for name, t in end.items()} == {name: t.shape for name, t in model.initial_state(1).items()}


def rows(values: np.ndarray, lost: float) -> torch.Tensor:
    """[N, C] -> [1, N, 2 C + 2], a share of it missing."""
    there = np.random.default_rng(1).random(values.shape) >= lost
    clock = np.arange(len(values))[:, None] / [24, 168] % 1
    return torch.from_numpy(np.column_stack([np.where(there, values, 1e9), there, clock]).astype(np.float32))[None]


def test_what_is_missing_is_not_read_and_a_wild_reading_does_no_lasting_harm() -> None:
    torch.manual_seed(0)
    config = MultivariateConfig(("a", "b"), ("a", "b"), NetworkConfig(plain=6, targets=2, hidden=8, horizon=4))
    values = np.sin(np.arange(400) / 5)[:, None] + 0.1 * np.random.default_rng(0).standard_normal((400, 2))
    model = Multivariate(config).eval()
    model.set_scaling(Scaling.of(values))
    model.prior.copy_(torch.linspace(0.1, 0.8, 4)[None, :, None])
    wild = values.copy()
    wild[150:160] = np.array([1e12, -np.inf, np.nan, 3e38, -1e9] * 2)[:, None]
    with torch.no_grad():
        plain, harmed = (model(rows(x, 0.0), model.initial_state(1)) for x in (values, wild))
        holes, other = (model(rows(values, 0.3) * factor, model.initial_state(1))[0] for factor in (1, _elsewhere()))
    assert all(bool(torch.isfinite(t).all()) for t in (*harmed[0].values(), *harmed[1].values()))
    assert (plain[0]["mean"][:, 250:] - harmed[0]["mean"][:, 250:]).square().mean().sqrt() < 0.1
    assert all(torch.equal(holes[name], other[name]) for name in holes)


def _elsewhere() -> torch.Tensor:
    """Other numbers where a reading is missing, and only there."""
    factor = rows(np.ones((400, 2)), 0.3)
    return torch.where(factor == 1e9, 7.0, 1.0)


# -- export, engine, command -----------------------------------------------------------------------------------------


def test_the_file_keeps_its_laws_and_says_what_it_takes(trained: Trained) -> None:
    assert judge_file(trained.onnx, long_chunks=100).ok
    manifest = Model.load(trained.onnx).manifest
    assert manifest.options["variables"] == manifest.options["targets"] == ["outflow", "inflow"]
    assert manifest.input.chunk_shape == (1, 6)
    assert {o.name: o.shape for o in manifest.outputs}["quantiles"] == (1, 2, plant.HORIZON, 7)
    assert manifest.provenance.scores["test.mase"] < 1


class Client:
    """Sends rows to the engine, one behind the other, and keeps what it says."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.taken, self.events = rows, 0, list[Forecast]()
        self.memory: Any = None
        self.over = threading.Event()

    def take(self, rows: Mapping[str, np.ndarray]) -> int:
        (chunk,) = rows.values()
        chunk[0] = self.rows[self.taken]
        self.taken += 1
        return 1

    def deliver(self, events: Sequence[Any]) -> bool:
        self.events += events
        if self.taken == len(self.rows):
            self.over.set()
        return self.taken < len(self.rows)

    def fail(self, message: str) -> None:
        self.over.set()
        raise AssertionError(message)

    def released(self) -> None:
        pass


def test_the_engine_says_what_pytorch_says(trained: Trained) -> None:
    module, _ = models.load(trained.folder / "best.pt")
    x = trained.plan().inputs()[:300]
    want, model = run(module, x), Model.load(trained.onnx)
    engine = Engine(model, create(model.manifest), Metrics(CollectorRegistry()).model("plant"), capacity=2)
    client = Client(x)
    client.memory = engine.task.open({})
    stream = engine.open(client)
    assert stream is not None
    engine.start()
    engine.ready(stream)
    assert client.over.wait(120)
    engine.close()
    assert [event.target for event in client.events] == ["outflow", "inflow"] * 300
    got = np.array([event.mean for event in client.events]).reshape(300, 2, -1)
    assert np.allclose(got, want.mean, rtol=1e-3, atol=1e-3)


def test_the_command_says_of_the_file_what_training_scored(trained: Trained) -> None:
    """Missing rows, duplicates, columns, clock: all as in training."""
    done = streamer("forecast", "--model", trained.onnx, "--json", trained.data)
    assert done.returncode == 0
    said = [json.loads(line) for line in done.stdout.decode().splitlines()]
    plan = trained.plan()
    module, _ = models.load(trained.folder / "best.pt")
    want = run(module, plan.inputs())
    kept = np.flatnonzero(np.isin(plan.table.times, plan.raw.times))
    missing = len(plan.table.times) - len(kept)
    assert f"plant.csv: {missing} steps without a reading, 1 duplicates left out\n" in done.stderr.decode()
    assert [row["stream"] for row in said] == ["outflow", "inflow"] * len(kept)
    values = plan.table.values[kept][:, :2].reshape(-1)
    assert np.allclose([np.nan if row["value"] is None else row["value"] for row in said], values, equal_nan=True)
    got = np.array([row["quantiles"]["0.5"] for row in said]).reshape(len(kept), 2, -1)
    assert np.allclose(got[50:], want.middle[kept][50:], rtol=2e-3, atol=2e-2)


def test_rows_come_as_ndjson_and_columns_in_any_order(trained: Trained, tmp_path: Path) -> None:
    lines = trained.data.read_text().splitlines()[1:60]
    cells = [line.split(",") for line in lines]
    path = tmp_path / "plant.ndjson"
    number = {"": None, "NaN": None}
    path.write_text(
        "".join(
            json.dumps({"inflow": number.get(b, b), "ts": time, "id": 4, "outflow": number.get(a, a)}) + "\n"
            for time, a, b, *_ in cells
        )
    )
    plain = streamer("forecast", "--model", trained.onnx, "--json", "-", stdin=b"\n".join(
        line.encode() for line in trained.data.read_text().splitlines()[:60]
    ))  # fmt: skip
    other = streamer("forecast", "--model", trained.onnx, "--json", path)
    assert other.returncode == plain.returncode == 0
    assert other.stdout == plain.stdout


def test_the_table_the_csv_and_the_scores(trained: Trained, tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    done = streamer("forecast", "--model", trained.onnx, "--scores", scores, trained.data)
    assert "outflow" in done.stdout.decode()
    assert "1 duplicates" in done.stdout.decode() or "2 duplicates" in done.stdout.decode()
    found = json.loads(scores.read_text())["streams"]
    assert found["outflow"]["life"]["all"]["mase"] < 0.9
    assert 0.8 < found["inflow"]["life"]["all"]["coverage"] < 0.97
    done = streamer("forecast", "--model", trained.onnx, "--csv", "--plot", tmp_path / "out.png", trained.data)
    assert len(done.stdout.decode().splitlines()) == 1 + 2 * plant.HORIZON
    assert (tmp_path / "out.png").stat().st_size > 10_000


def test_what_the_command_can_not_do_is_told(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("time,outflow\n2026-01-01,400\n")
    assert "has no column 'inflow': there are time, outflow" in _refused(trained, path)
    assert "--value is not for" in _refused(trained, "--value", "outflow", trained.data)
    quarters = tmp_path / "quarters.csv"
    quarters.write_text("ts,outflow,inflow\n" + "".join(f"{900 * row},400,0.5\n" for row in range(20)))
    done = streamer("forecast", "--model", trained.onnx, "--csv", quarters)
    assert "a row comes every 900 s, and plant has learnt rows that come every 3600 s" in one_line(done.stderr)


def _refused(trained: Trained, *arguments: str | Path) -> str:
    done = streamer("forecast", "--model", trained.onnx, *arguments)
    assert done.returncode == 2
    return one_line(done.stderr)


def test_several_plants_stand_in_one_table(trained: Trained, tmp_path: Path) -> None:
    header, *lines = trained.data.read_text().splitlines()[:80]
    path = tmp_path / "plants.csv"
    path.write_text("\n".join([f"{header},plant", *(f"{line},{which}" for line in lines for which in "ab")]))
    plain = streamer("forecast", "--model", trained.onnx, "--json", "-", stdin="\n".join([header, *lines]).encode())
    both = streamer("forecast", "--model", trained.onnx, "--json", "--id", "plant", "--capacity", "2", path)
    assert (plain.returncode, both.returncode) == (0, 0)
    gaps, twice = (
        int(done.stderr.decode().partition(" steps without a reading")[0].split()[-1]) for done in (plain, both)
    )
    assert (twice, both.stderr.count(b"\n")) == (2 * gaps, 1)
    want = plain.stdout.decode().splitlines()
    for which in "ab":
        told = [line for line in both.stdout.decode().splitlines() if f'"stream": "{which}.' in line]
        assert len(told) == len(want)
        first, last = ([json.loads(line) for line in (lines[0], lines[-1])] for lines in (told, want))
        assert [row["stream"] for row in first] == [f"{which}.{row['stream']}" for row in last]
        assert np.allclose(first[1]["quantiles"]["0.5"], last[1]["quantiles"]["0.5"], rtol=1e-4, atol=1e-4)


def test_the_daemon_s_sensors_say_what_pytorch_says(trained: Trained, tmp_path: Path) -> None:
    plan, (module, _) = trained.plan(), models.load(trained.folder / "best.pt")
    count = 300
    want = run(module, plan.inputs()[:count])
    settings = Settings(models=[str(trained.onnx)], state_directory=tmp_path, max_sensors=2, sensor_step=3600)
    host = Sensors(settings, Metrics(CollectorRegistry()))
    host.load([trained.onnx])
    fleet = host.choose(None, ["inflow", "time", "outflow"])
    kept = np.flatnonzero(np.isin(plan.table.times[:count], plan.raw.times))
    values = plan.table.values[kept][:, plan.columns]
    batch = ReadingBatch(["north"] * len(kept), plan.table.times[kept], values)
    told = fleet.write(batch, answer=True).forecasts
    assert told is not None
    middle = told.result(120).quantiles[..., fleet.layout.levels.index("0.5")]
    host.close()
    assert np.allclose(middle[50:], want.middle[kept][50:], rtol=2e-3, atol=2e-2)
