"""The rows of docs/RESULTS.md: which runs there are, what they are asked for, and what others publish for the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ZOO = "RL Baselines3 Zoo, benchmark.md, one run"
SEEDS = (0, 1, 2, 3, 4)

_BREAKOUT = "5.8 ± 1.7 after 500 000 frames, 11.1 ± 2.4 after 1 000 000 (the authors' script run by others, one run, 10 episodes)"
_PONG = "--steps 100000 --learning-rate 1e-4 --min-size 5000 --max-steps 100000 --epsilon-steps 40000 --epsilon-end 0.02 --num-envs 4"
_PONG += " --eval-every 2500 --eval-episodes 2"


@dataclass(frozen=True, slots=True)
class Variant:
    """Runs that differ only in their seeds."""

    name: str
    options: str
    """Of ``replaystore-agents solo``, or of ``offline``, without paths and seed."""
    seeds: tuple[int, ...] = SEEDS
    data: str = ""
    """``ROW/VARIANT`` whose store of seed 0 this one learns from, offline; empty: it plays itself."""
    twice: bool = False
    """Whether seed 0 is trained again, to see whether the curves are the same."""


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison: the same environment for all its variants."""

    name: str
    env: str
    title: str
    asked: str
    """What is to be reached."""
    published: str
    """What others report, and where."""
    variants: tuple[Variant, ...]
    target: float | None = None
    """A mean return that is drawn, and looked for in the curves."""
    goals: str = ""
    """Which reward says that an episode has reached its goal, by being 0: the ``last``, or the ``highest``; empty: no goal task."""
    episodes: int = 100
    """Of the final evaluation of each run, with seeds that training has not seen."""


def _solo(name: str, options: str, seeds: tuple[int, ...] = SEEDS) -> Variant:
    return Variant(name, f"--target-return 0 {options}", seeds)


CARTPOLE = "Double DQN, 3 steps, PER"
SAC = "SAC"

_LANDER = (
    "--steps 250000 --n-step 3 --alpha 0 --dueling --batch-size 128 --samples-per-insert 32 --learning-rate 5e-4 --tau 0.005 "
    "--hidden 256,256 --epsilon-steps 30000 --epsilon-end 0.05 --eval-every 2500 --eval-episodes 20"
)
_BITS = (
    "--steps 15000 --alpha 0 --gamma 0.98 --n-step 1 --learning-rate 1e-3 --batch-size 128 --samples-per-insert 64 --tau 0.05 "
    "--epsilon-end 0.1 --eval-every 500 --eval-episodes 50 --num-envs 8"
)
_REACH = "--algorithm ddpg --preset goals --steps 6000 --batch-size 128 --samples-per-insert 64 --eval-every 500 --eval-episodes 50"
_GAME = "--steps 200000 --samples-per-insert 8 --epsilon-steps 60000 --epsilon-end 0.02 --num-envs 8 --eval-every 2500 --eval-episodes 20"
_MAZE = (
    "--steps 30000 --alpha 0 --gamma 0.99 --learning-rate 1e-3 --batch-size 64 --samples-per-insert 16 --eval-every 500 "
    "--eval-episodes 5 --epsilon-steps 15000 --epsilon-end 0.1 --num-envs 8"
)
_ACROBOT = (
    "--steps 50000 --alpha 0 --batch-size 128 --samples-per-insert 32 --learning-rate 1e-3 --tau 0.01 --eval-every 1000 --eval-episodes 20"
)
_PENDULUM = "--algorithm sac --preset pendulum --steps 6000 --random-steps 1000 --num-envs 1 --eval-every 500 --eval-episodes 20"
_SAVED = "--max-updates 8000 --eval-every 1000 --eval-episodes 20 --batch-size 256"
_SWINGS = "--max-updates 4000 --eval-every 1000 --eval-episodes 20 --batch-size 256"

ROWS = (
    Row(
        "cartpole", "CartPole-v1", "CartPole", "at least 475 in at most 50 000 steps", f"DQN 500 ± 0 after 50 000 steps ({ZOO})",
        (_solo(CARTPOLE, "--steps 50000 --eval-every 500 --eval-episodes 20"),), target=475.0,
    ),
    Row(
        "bit-flip", "replaystore/BitFlip-v0", "Bit-flip, 15 bits", "hindsight solves it, without it nothing is learned",
        "with hindsight solved up to 40 bits, without not beyond 13 (Andrychowicz et al. 2017, section 4.1)",
        (_solo("DQN with hindsight", _BITS, (0, 1, 2)), _solo("DQN without", f"{_BITS} --hindsight 0", (0, 1, 2))), goals="highest",
    ),
    Row(
        "maze", "replaystore/Maze-v0", "A maze of 9 by 9", "the optimum, -28", "breadth-first search knows the optimum",
        (_solo("Double DQN, 3 steps", _MAZE),), target=-28.0,
    ),
    Row(
        "acrobot", "Acrobot-v1", "Acrobot", "what others reach", f"DQN -76.6 ± 11.8 after 100 000 steps ({ZOO})",
        (_solo("Double DQN, 3 steps", _ACROBOT, (0, 1, 2)),), target=-100.0,
    ),
    Row(
        "pendulum", "Pendulum-v1", "Pendulum", "at least -200", f"SAC -157 ± 89 after 20 000 steps ({ZOO})",
        (_solo(SAC, _PENDULUM, (0, 1, 2)),), target=-200.0,
    ),
    Row(
        "reach", "replaystore/PointReach-v0", "Point reach, continuous", "hindsight against none",
        "a task of our own; FetchReach is alike, and solved with hindsight (Plappert et al. 2018)",
        (_solo("DDPG with hindsight", _REACH, (0, 1, 2)), _solo("DDPG without", f"{_REACH} --hindsight 0", (0, 1, 2))), goals="last",
    ),
    Row(
        "lunar-lander", "LunarLander-v3", "LunarLander", "at least 200",
        f"DQN 154 ± 79 after 100 000 steps, PPO 242 ± 32 after 1 000 000, of LunarLander-v2 ({ZOO})",
        (_solo("Dueling Double DQN, 3 steps", _LANDER, (0, 1, 2)),), target=200.0,
    ),
    Row(
        "breakout", "MinAtar/Breakout-v1", "MinAtar Breakout", "Rainbow no worse than DQN; beside the paper's DQN",
        f"the paper's DQN, one update per frame: {_BREAKOUT}",
        (
            _solo("DQN", f"--preset dqn,minatar {_GAME}", (0, 1, 2)),
            _solo("Rainbow", f"--preset rainbow,minatar {_GAME} --v-min 0 --v-max 20", (0, 1, 2)),
        ),
    ),
    Row(
        "space-invaders", "MinAtar/SpaceInvaders-v1", "MinAtar Space Invaders", "beside the paper's DQN",
        "Young and Tian (2019), figure 2: curves over 5 000 000 frames; no figure for a budget like this one",
        (_solo("DQN", f"--preset dqn,minatar {_GAME}", (0, 1, 2)),),
    ),
    Row(
        "replay", "CartPole-v1", "Kinds of replay", "no replay against each kind", "none for this budget",
        tuple(
            _solo(name, f"--replay {replay} --steps 15000 --eval-every {every} --eval-episodes 20")
            for name, replay, every in (
                ("no replay", "none", 10), ("uniform", "uniform", 250), ("prioritized", "per", 250), ("by rank", "rank", 250),
                ("recency", "recency", 250),
            )
        ),
        target=475.0,
    ),
    Row(
        "offline-cartpole", "CartPole-v1", "CartPole, offline from a saved store", "the behaviour's return and more; BC is the floor",
        "none for these data",
        tuple(
            Variant(name, f"--algorithm {algorithm} {_SAVED}", (0, 1), f"cartpole/{CARTPOLE}", twice=name == "DQN")
            for name, algorithm in (("DQN", "dqn"), ("Double DQN with CQL", "cql"), ("IQL", "iql"), ("BC", "bc"))
        ),
        target=475.0,
    ),
    Row(
        "offline-pendulum", "Pendulum-v1", "Pendulum, offline from a saved store", "the behaviour's return and more; BC is the floor",
        "none for these data",
        tuple(Variant(name, f"--algorithm {name.lower()} {_SWINGS}", (0, 1), f"pendulum/{SAC}") for name in ("IQL", "TD3", "BC")),
        target=-200.0,
    ),
    Row(
        "pong", "ALE/Pong-v5", "Atari Pong", "the longest honest run on a CPU", f"DQN 20.6 ± 0.6 after 10 000 000 frames ({ZOO})",
        (_solo("Double DQN, 3 steps", f"--preset double,atari --n-step 3 {_PONG}", (0,)),), episodes=5,
    ),
)  # fmt: skip


def row_of(name: str) -> Row:
    """The row of that name. KeyError: there is none."""
    return {row.name: row for row in ROWS}[name]


def folder_of(results: Path, row: Row, variant: Variant, seed: int) -> Path:
    """Where a run lies."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in variant.name.lower())
    return results / row.name / "-".join(filter(None, plain.split("-"))) / f"seed-{seed}"
