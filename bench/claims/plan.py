"""What is trained, healed and measured on a machine with four cards or two, as data: what, after what, where, how long.

Lanes run side by side, the jobs of a lane one after the other: a single job doesn't fill a card. What matters most
comes first in each lane. `bench.claims.hold` runs it.
"""

from __future__ import annotations

from dataclasses import dataclass

TINY_SECONDS = 4.0  # of healing where everything is tiny


@dataclass(frozen=True)
class Job:
    """One program's run.

    Attributes:
        name: of its folder and log.
        lane: jobs of one lane follow each other.
        card: that the lane is on, of four; of two, card 2 is 0 and card 3 is 1.
        seconds: that it is given, its preparation included but not the judging after it.
        command: program under `bench.claims` and its options; `{out}` is the folder of all jobs.
        needs: names of jobs that must have ended well, whatever lane they are in.
    """

    name: str
    lane: str
    card: int
    seconds: float
    command: str
    needs: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        """The module under `bench.claims`."""
        return self.command.split()[0]


def _teacher(name: str, lane: str, card: int, seconds: float, options: str = "", needs: tuple[str, ...] = ()) -> Job:
    return Job(name, lane, card, seconds, f"teachers {name} {options}", needs)


def _on(name: str, lane: str, card: int, seconds: float) -> Job:
    """Train a teacher on: a seed is measured by the better of both."""
    return Job(f"{name}-on", lane, card, seconds, f"teachers {name} --start {{out}}/{name}", (name,))


def _heal(name: str, lane: str, card: int, seconds: float) -> Job:
    return Job(f"{name}-heal", lane, card, seconds, f"heal --start {{out}}/{name}", (name,))


def _student(name: str, student: str, lane: str, card: int, seconds: float, options: str = "") -> Job:
    command = f"students {student} --teacher {{out}}/{name} {options}"
    return Job(f"{name}-student", lane, card, seconds, command, (name,))


def _student_heal(name: str, lane: str, card: int, seconds: float) -> Job:
    """Heal a student to the bytes of the seed beside it; it goes on learning from the teacher."""
    command = f"heal --start {{out}}/{name}-student --teacher {{out}}/{name} {_as_large_as(name)}"
    return Job(f"{name}-student-heal", lane, card, seconds, command, (name, f"{name}-student", f"{name}-heal"))


def _random_heal(name: str, lane: str, card: int, seconds: float) -> Job:
    """Heal the same network from random weights to the same bytes: all but the start is as for the seed."""
    command = f"heal --start {{out}}/{name} --random --teacher {{out}}/{name} {_as_large_as(name)}"
    return Job(f"{name}-random-heal", lane, card, seconds, command, (name, f"{name}-heal"))


def _as_large_as(name: str) -> str:
    return f"--as-large-as {{out}}/{name}-heal/model.seed"


def _controls(name: str, lane: str, card: int, seconds: float) -> Job:
    return Job(f"{name}-controls", lane, card, seconds, f"controls --start {{out}}/{name}", (name,))


JOBS = (
    _teacher("resnet50", "resnet50", 0, 350),
    _heal("resnet50", "resnet50", 0, 680),
    _random_heal("resnet50", "resnet50", 0, 200),
    _controls("resnet50", "resnet50", 0, 80),
    Job("tokens", "distilbert", 2, 60, "tokens"),
    _teacher("distilbert", "distilbert", 2, 540, "--masked-share 0.75", ("tokens",)),
    _heal("distilbert", "distilbert", 2, 480),
    _on("distilbert", "distilbert", 2, 90),
    _controls("distilbert", "distilbert", 2, 80),
    _on("resnet50", "beside", 1, 220),
    _student("resnet50", "small-vision", "beside", 1, 120),
    _student_heal("resnet50", "beside", 1, 200),
    _teacher("mobilenetv2", "mobilenetv2", 1, 270),
    _heal("mobilenetv2", "mobilenetv2", 1, 420),
    _student("mobilenetv2", "small-vision", "mobilenetv2", 1, 100),
    _on("mobilenetv2", "mobilenetv2", 1, 120),
    _student_heal("mobilenetv2", "mobilenetv2", 1, 180),
    _random_heal("mobilenetv2", "mobilenetv2", 1, 180),
    _controls("mobilenetv2", "mobilenetv2", 1, 70),
    _teacher("gpt2", "gpt2", 3, 520, "--compile", ("tokens",)),
    _heal("gpt2", "gpt2", 3, 560),
    _on("gpt2", "gpt2", 3, 100),
    _student("gpt2", "looped-language", "gpt2", 3, 150),
    _student_heal("gpt2", "gpt2", 3, 200),
    _controls("gpt2", "gpt2", 3, 120),
    # Masked words need no teacher: they are over when there is one.
    Job(
        "berttiny-words", "berttiny", 2, 530,
        "teachers berttiny --out {out}/berttiny --masked-only", ("tokens",),
    ),
    _teacher(
        "berttiny", "berttiny", 2, 130, "--masked-share 0.01 --teacher {out}/distilbert",
        ("berttiny-words", "distilbert"),
    ),
    _heal("berttiny", "berttiny", 2, 260),
    _student("berttiny", "small-text", "berttiny", 2, 90, "--masked-share 0.4"),
    _on("berttiny", "berttiny", 2, 60),
    _student_heal("berttiny", "berttiny", 2, 120),
    _random_heal("berttiny", "berttiny", 2, 120),
    # BERT-tiny learned DistilBERT's answers: it is the student at the bytes of DistilBERT's seed.
    Job(
        "distilbert-student-heal", "berttiny", 2, 100,
        f"heal --start {{out}}/berttiny --teacher {{out}}/distilbert {_as_large_as('distilbert')}",
        ("berttiny", "distilbert", "distilbert-heal"),
    ),
    _controls("berttiny", "berttiny", 2, 50),
)  # fmt: skip
