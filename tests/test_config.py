"""Configuration: strict, with the path and the nearest spelling in every error, and it reads back what it dumps."""

from pathlib import Path
from typing import get_args

import pytest

from fastface.command import load_config, parse_command
from fastface.config import RunConfig
from fastface.data.plans import PLANS
from fastface.plan_settings import PerIdentityPlan, PlanSettings

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("**/*.yaml"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimm: {}", "unknown key optimm, perhaps you meant 'optim'"),
        ("optim: {lrr: 1.0}", "unknown key optim.lrr, perhaps you meant 'lr'"),
        ("eval: {sets: {val: {imagess: x}}}", "unknown key eval.sets.val.imagess, perhaps you meant 'images'"),
        ("optim: {lr: fast}", "optim.lr: input should be a valid number, got 'fast'"),
        ("seed: 1.5", "seed: input should be a valid integer"),
        ("train: {compile: 1}", "train.compile: input should be a valid boolean"),
        ("task: {name: arcfase}", "task.name: no 'arcfase'"),
        ("train: {epochs: 2, epochs: 3}", "key 'epochs' stands twice"),
        ("train: {batch_size: 100, micro_batch: 33}", "batch_size 100 is not a multiple of micro_batch 33"),
        ("optim: {schedule: multistep}", "needs at least one"),
        ("eval: {best_metric: vall/acc, sets: {val: {bin: x}}}", "names no set of eval.sets (val)"),
        ("eval: {sets: {val: {}}}", "either images (with pairs) or bin"),
        ("eval: {patience: 3}", "patience needs best_metric"),
        ("data: {augment: recogntion}", "data.augment: no preset 'recogntion', perhaps you meant 'recognition'"),
        (
            "data: {augment: [{name: eras}]}",
            "data.augment.0.name: no 'eras', perhaps you meant 'erase'; choose crop_pad, ",
        ),
        ("data: {augment: [{name: grey}, {p: 1.0}]}", "data.augment.1.name: missing; choose crop_pad, random_"),
        (
            "data: {augment: [{name: noise, sigmaa: [1, 2]}]}",
            "unknown key data.augment.0.sigmaa, perhaps you meant 'sigma'",
        ),
        (
            "data: {augment: [{name: jpeg, quality: [90, 10]}]}",
            "data.augment.0.quality: [90, 10] is no range: take two",
        ),
        ("data: {augment: [{name: grey, p: 1.5}]}", "data.augment.0.p: input should be less than or equal to 1"),
        ("data: {plan: {images: 4}}", "data.plan.name: missing; choose shuffled, per-identity, weighted"),
        ("data: {plan: {name: per-identty}}", "data.plan.name: no 'per-identty', perhaps you meant 'per-identity'"),
        ("data: {plan: {name: per-identity, imagess: 4}}", "unknown key data.plan.imagess, perhaps you meant 'images'"),
        ("data: {plan: {name: per-identity, images: 0}}", "data.plan.images: input should be greater than or equal"),
        ("data: {plan: {name: shuffled, images: 4}}", "unknown key data.plan.images; its section has name"),
        ("data: {plan: {name: weighted, weights: {a: x}}}", "data.plan.weights.a: input should be a valid number"),
        ("data: {plan: {name: mined}}", "data.plan: give a file of neighbours (tools/mine.py writes it), or refresh"),
        ("data: {plan: shuffled}", "data.plan: input should be"),
        ("data: {sources: [{shards: a, wight: 2}], labels: separate}", "data.sources.0.wight, perhaps you meant"),
        ("data: {sources: [{shards: a}, {shards: b}]}", "data: sources and labels (separate or merge-by-name)"),
        ("data: {shards: c, sources: [{shards: a}], labels: separate}", "data: give either shards or sources"),
        ("- 1", "expected 'section:' keys"),
        ("a: [", "not readable as YAML"),
    ],
)
def test_a_bad_file_is_refused_with_path_and_remedy(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        load_config(write(tmp_path / "a.yaml", text))
    assert expected in str(caught.value)
    assert "a.yaml" in str(caught.value)


def test_a_section_with_another_name_starts_anew(tmp_path: Path) -> None:
    below = write(
        tmp_path / "a.yaml", "task: {name: arcface, s: 24.0, margin: {name: magface, l_norm: 5.0}}\noptim: {lr: 0.3}"
    )
    above = write(tmp_path / "b.yaml", "task: {name: triplet, margin: 0.3}\noptim: {name: adam}\n")
    config = load_config(below, above)
    assert (config.task.name, config.task.margin) == ("triplet", 0.3)
    assert (config.optim.name, config.optim.lr) == ("adam", 0.3)
    other = write(tmp_path / "c.yaml", "task: {margin: {name: adaface, h: 0.2}}")
    margin = load_config(below, other).task.margin
    assert (load_config(below, other).task.s, margin.name, margin.h) == (24.0, "adaface", 0.2)
    same = write(tmp_path / "d.yaml", "task: {margin: {u_norm: 50.0}}")
    assert (load_config(below, same).task.margin.l_norm, load_config(below, same).task.margin.u_norm) == (5.0, 50.0)


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "demo.yaml", "")
    with pytest.raises(FileNotFoundError, match=r"perhaps you meant 'demo\.yaml'"):
        load_config(tmp_path / "demmo.yaml")


@pytest.mark.parametrize(("word", "expected"), [("true", True), ("False", False), ("w.pth", Path("w.pth"))])
def test_pretrained_on_the_command_line(tmp_path: Path, word: str, expected: bool | Path) -> None:
    config = write(tmp_path / "a.yaml", "model: {backbone: test_resnet}")
    assert parse_command(["--config", str(config), "--model.pretrained", word]).config.model.pretrained == expected


def test_files_merge_left_to_right_then_overrides(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "optim: {lr: 1e-3, weight_decay: 0.1}\neval: {sets: {a: {bin: a.bin}}}")
    second = write(tmp_path / "b.yaml", "optim: {lr: 0.5}\neval: {sets: {b: {images: x, pairs: 12}}}")
    config = load_config(first, second, overrides=["--train.epochs", "2", "--eval.sets.b.pairs", "pairs.txt"])
    assert (config.optim.lr, config.optim.weight_decay, config.train.epochs) == (0.5, 0.1, 2.0)
    assert config.eval.sets["b"].pairs == Path("pairs.txt")
    assert config.eval.sets["a"].bin == Path("a.bin")


def test_null_takes_an_evaluation_set_away(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "eval: {sets: {a: {bin: a.bin}, b: {bin: b.bin}}, best_metric: b/acc}")
    second = write(tmp_path / "b.yaml", "eval: {sets: {a: null, never: null}}")
    assert list(load_config(first, second).eval.sets) == ["b"]
    assert load_config(second).eval.sets == {}
    with pytest.raises(ValueError, match=r"best_metric 'b/acc' names no set of eval\.sets \(none\)"):
        load_config(first, second, write(tmp_path / "c.yaml", "eval: {sets: {b: null}}"))


def test_augmentation_is_a_preset_or_a_list(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "data: {augment: liveness}")
    assert load_config(file).data.augment == "liveness"
    assert load_config(file, overrides=["--data.augment", "recognition"]).data.augment == "recognition"
    given = write(tmp_path / "b.yaml", "data: {augment: [{name: erase, area: [0.1, 0.2]}, {name: grey, p: 1}]}")
    config = load_config(given, overrides=["--data.flip", "0.1"])
    assert [(operator.name, operator.p) for operator in config.data.augment] == [("erase", 0.2), ("grey", 1.0)]
    assert load_config(write(tmp_path / "c.yaml", config.dump())) == config


def test_plans_and_sources_are_overridden_option_by_option(tmp_path: Path) -> None:
    text = "data: {plan: {name: per-identity, images: 3}, labels: separate, sources: [{shards: a}, {shards: b}]}"
    file = write(tmp_path / "a.yaml", text)
    config = load_config(file, overrides=["--data.plan.images", "9", "--data.sources.1.weight", "3"])
    assert config.data.plan == PerIdentityPlan(images=9)
    assert [source.weight for source in config.data.sources] == [1.0, 3.0]
    assert load_config(write(tmp_path / "dumped.yaml", config.dump())) == config


def test_every_plan_can_be_chosen_and_built() -> None:
    names = [plan.model_fields["name"].default for plan in get_args(PlanSettings)]
    assert names == list(PLANS)


def test_cross_field_checks_hold_for_overrides_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "a.yaml", "train: {batch_size: 64}")
    with pytest.raises(SystemExit):
        load_config(file, overrides=["--train.micro_batch", "48"])
    assert "not a multiple of micro_batch 48" in capsys.readouterr().err


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_loads_and_dumps_to_itself(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert load_config(write(tmp_path / "dumped.yaml", config.dump())) == config
    header = path.read_text(encoding="utf-8").splitlines()
    assert header[0].startswith("# "), "a config opens with what it is"
    assert any(line.startswith("# ") and "--config" in line for line in header[:3]), "and with its command"


def test_defaults_dump_to_themselves(tmp_path: Path) -> None:
    assert load_config(write(tmp_path / "d.yaml", RunConfig().dump())) == RunConfig()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write(tmp_path / "demo.yaml", "seed: 4"))
    assert parse_command(["--config", file]).resume is None
    assert parse_command(["--config", file, "--resume"]).resume == ""
    command = parse_command(["--config", file, "--resume", "runs/x", "--seed", "9"])
    assert (command.resume, command.config.seed, command.stem) == ("runs/x", 9, "demo")
    with pytest.raises(SystemExit) as stopped:
        parse_command(["--config", file, "--optim.lrr", "3"])
    assert stopped.value.code == 2
    assert "--optim.lr" in capsys.readouterr().err
