"""The training loop: it learns, resumes bit for bit after a kill, and refuses another model's checkpoint."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from anyform.errors import BadInput
from anyform.training.loop import TrainConfig, _seed, fit, load_state
from anyform.types.progress import Progress, silent

CONFIG = TrainConfig(steps=40, learning_rate=0.2, warmup=4, ema_decay=0.9, log_every=10, checkpoint_every=10)


class Line:
    """Fit y = 3x − 1 from noisy pairs."""

    def __call__(self, model, rng):
        x = torch.from_numpy(rng.standard_normal((16, 1)).astype("float32"))
        loss = (model(x) - 3 * x + 1 + 0.01 * torch.randn(16, 1)).square().mean()
        return loss, {"size": 16.0}


def line_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(1, 1)


def test_it_learns_logs_and_reports(tmp_path):
    seen: list[Progress] = []
    average = fit(line_model(), Line, CONFIG, tmp_path, seen.append)
    assert abs(float(average.weight) - 3) < 0.5
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert seen[-1].step == seen[-1].total == 40


def test_stopping_and_continuing_changes_no_bit(tmp_path):
    whole = fit(line_model(), Line, CONFIG, tmp_path / "whole", silent)

    class Stopped(Exception):
        pass

    def stop_at_20(progress: Progress) -> None:
        if progress.step >= 25 or progress.step == 20:
            raise Stopped

    with pytest.raises(Stopped):
        fit(line_model(), Line, CONFIG, tmp_path / "parts", stop_at_20)
    assert load_state(tmp_path / "parts" / "checkpoint.pt").step == 10
    parts = fit(line_model(), Line, CONFIG, tmp_path / "parts", silent)
    assert torch.equal(whole.weight, parts.weight)
    assert torch.equal(whole.bias, parts.bias)


SCRIPT = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
from test_loop import CONFIG, Line, line_model
from dataclasses import replace
from anyform.training.loop import fit
config = replace(CONFIG, steps=4000, log_every=5, checkpoint_every=5)
fit(line_model(), Line, config, Path(sys.argv[1]), lambda p: print(p.step, flush=True))
"""


def test_kill_9_then_resume_equals_an_uninterrupted_run(tmp_path):
    script = SCRIPT.format(tests=str(Path(__file__).parent))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "killed")], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 60:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    step = load_state(tmp_path / "killed" / "checkpoint.pt").step
    assert 55 <= step < 4000
    config = replace(CONFIG, steps=step + 30, log_every=5, checkpoint_every=5, decay_part=0.0)
    resumed = fit(line_model(), Line, config, tmp_path / "killed", silent)
    whole = fit(line_model(), Line, config, tmp_path / "whole", silent)
    assert torch.equal(resumed.weight, whole.weight)


def test_two_workers_step_with_the_mean_of_their_gradients(tmp_path):
    config = replace(CONFIG, workers=2, steps=40, checkpoint_every=20)
    model, by_hand = line_model(), line_model()
    average = fit(model, partial(Line), config, tmp_path, silent)
    optimiser, loss_of = torch.optim.AdamW(by_hand.parameters(), betas=config.betas, weight_decay=0.0), Line()
    for step in range(config.steps):
        optimiser.param_groups[0]["lr"] = config.rate(step)
        optimiser.zero_grad()
        for worker in range(2):
            (loss_of(by_hand, _seed(config, worker, step))[0] / 2).backward()
        nn.utils.clip_grad_norm_(by_hand.parameters(), config.clip)
        optimiser.step()
    assert torch.allclose(model.weight, by_hand.weight, atol=1e-5)  # the parent sees what the workers did
    assert torch.allclose(model.bias, by_hand.bias, atol=1e-5)
    assert abs(float(average.weight) - 3) < 0.5
    assert load_state(tmp_path / "checkpoint.pt").step == 40


def test_two_workers_resume_bit_for_bit(tmp_path):
    config = replace(CONFIG, workers=2, steps=20, decay_part=0.0)
    whole, parts = line_model(), line_model()
    fit(whole, partial(Line), config, tmp_path / "whole", silent)
    fit(line_model(), partial(Line), replace(config, steps=10), tmp_path / "parts", silent)
    fit(parts, partial(Line), config, tmp_path / "parts", silent)
    assert torch.equal(whole.weight, parts.weight) and torch.equal(whole.bias, parts.bias)


class SecondDies(Line):
    """Ends its process in the second worker's first step, whose random numbers are known."""

    def __call__(self, model, rng):
        if copy.deepcopy(rng).random() == _seed(CONFIG, 1, 0).random():
            os._exit(7)
        return super().__call__(model, rng)


def test_a_worker_that_dies_ends_the_run_with_a_sentence(tmp_path):
    with pytest.raises(RuntimeError, match=r"a training worker died \(exit codes \[.*7.*\]\)"):
        fit(line_model(), partial(SecondDies), replace(CONFIG, workers=2, steps=4), tmp_path, silent)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    fit(line_model(), Line, CONFIG, tmp_path, silent)
    with pytest.raises(BadInput, match="another model"):
        fit(nn.Linear(2, 1), Line, CONFIG, tmp_path, silent)


def test_rate_warms_up_stays_and_decays():
    config = TrainConfig(steps=100, learning_rate=1.0, warmup=10, decay_part=0.5, final_rate=0.1)
    assert config.rate(0) == pytest.approx(0.1)
    assert config.rate(30) == 1
    assert config.rate(75) == pytest.approx(0.1 + 0.9 * 0.5)
    assert config.rate(100) == pytest.approx(0.1)


def test_paced_parameters_learn_at_their_own_rate(tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slow = torch.nn.Parameter(torch.zeros(1))
            self.fast = torch.nn.Parameter(torch.zeros(1))

        def paces(self) -> list[tuple[float, list[torch.nn.Parameter]]]:
            return [(1.0, [self.slow]), (10.0, [self.fast])]

    def make() -> Any:
        return lambda model, rng: ((model.slow + model.fast).sum(), {})

    model = Two()
    fit(model, make, TrainConfig(steps=3, warmup=0, learning_rate=1e-3, decay_part=0.0), tmp_path / "run", silent)
    assert model.slow.item() == pytest.approx(-3e-3, rel=1e-3)
    assert model.fast.item() == pytest.approx(-3e-2, rel=1e-3)
