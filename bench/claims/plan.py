"""What is trained, healed and measured on a machine with eight cards or fewer: what, after what, where, how long.

Lanes run side by side, the jobs of a lane one after the other. What matters most comes first in each lane, and no
healing waits for another one: students and random starts get the bytes of the goal, as the seed beside them does.
Teachers whose checkpoints are there aren't trained again. `bench.claims.hold` runs it.
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
        card: that the lane is on, of eight; of four, card 4 is 0, and so on.
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


def _variant(name: str, word: str, setting: str, lane: str, card: int, seconds: float) -> Job:
    """Heal with another setting: what of it the row lacks is seen beside the row itself."""
    return Job(f"{name}-{word}", lane, card, seconds, f"heal --start {{out}}/{name} --set {setting}", (name,))


def _student(name: str, student: str, lane: str, card: int, seconds: float, options: str = "") -> Job:
    command = f"students {student} --teacher {{out}}/{name} {options}"
    return Job(f"{name}-student", lane, card, seconds, command, (name,))


def _student_heal(name: str, lane: str, card: int, seconds: float) -> Job:
    """Heal a student to the bytes of its teacher's goal; it goes on learning from the teacher."""
    command = f"heal --start {{out}}/{name}-student --teacher {{out}}/{name}"
    return Job(f"{name}-student-heal", lane, card, seconds, command, (name, f"{name}-student"))


def _random_heal(name: str, lane: str, card: int, seconds: float) -> Job:
    """Heal the same network from random weights to the same bytes: all but the start is as for the seed."""
    command = f"heal --start {{out}}/{name} --random --teacher {{out}}/{name}"
    return Job(f"{name}-random-heal", lane, card, seconds, command, (name,))


def _controls(name: str, lane: str, card: int, seconds: float) -> Job:
    return Job(f"{name}-controls", lane, card, seconds, f"controls --start {{out}}/{name}", (name,))


JOBS = (
    _teacher("resnet50", "resnet50", 0, 350),
    _heal("resnet50", "resnet50", 0, 1150),
    _teacher("mobilenetv2", "mobilenetv2", 1, 270),
    _heal("mobilenetv2", "mobilenetv2", 1, 1050),
    Job("tokens", "distilbert", 2, 60, "tokens"),
    _teacher("distilbert", "distilbert", 2, 540, "--masked-share 0.75", ("tokens",)),
    _heal("distilbert", "distilbert", 2, 650),
    _teacher("gpt2", "gpt2", 3, 520, "--compile", ("tokens",)),
    _heal("gpt2", "gpt2", 3, 720),
    # Neither convolutional network recovered after its batch norms were folded, and small ones on a CPU do.
    _variant("resnet50", "late-fold", "fold=0.75", "resnet50-late-fold", 4, 1150),
    _variant("mobilenetv2", "late-fold", "fold=0.75", "mobilenetv2-late-fold", 5, 850),
    _variant("resnet50", "float32", "mixed_precision=false", "resnet50-float32", 7, 1150),
    # Masked words need no teacher: they are over when there is one.
    Job(
        "berttiny-words", "berttiny", 6, 530,
        "teachers berttiny --out {out}/berttiny --masked-only", ("tokens",),
    ),
    _teacher(
        "berttiny", "berttiny", 6, 130, "--masked-share 0.01 --teacher {out}/distilbert",
        ("berttiny-words", "distilbert"),
    ),
    _on("berttiny", "berttiny", 6, 100),
    _heal("berttiny", "berttiny", 6, 260),
    _student("berttiny", "small-text", "berttiny", 6, 90, "--masked-share 0.4"),
    _student_heal("berttiny", "berttiny", 6, 200),
    _random_heal("berttiny", "berttiny", 6, 200),
    # BERT-tiny learned DistilBERT's answers: it is the student at the bytes of DistilBERT's seed.
    Job(
        "distilbert-student-heal", "berttiny", 6, 150,
        "heal --start {out}/berttiny --teacher {out}/distilbert", ("berttiny", "distilbert"),
    ),
    _controls("berttiny", "berttiny", 6, 50),
    _student("resnet50", "small-vision", "resnet50-beside", 6, 180),
    _student_heal("resnet50", "resnet50-beside", 6, 550),
    _on("resnet50", "resnet50-beside", 6, 220),
    _controls("resnet50", "resnet50-beside", 6, 80),
    _random_heal("resnet50", "resnet50-beside", 6, 200),
    _student("mobilenetv2", "small-vision", "mobilenetv2-beside", 5, 150),
    _student_heal("mobilenetv2", "mobilenetv2-beside", 5, 500),
    _on("mobilenetv2", "mobilenetv2-beside", 5, 120),
    _random_heal("mobilenetv2", "mobilenetv2-beside", 5, 300),
    _controls("mobilenetv2", "mobilenetv2-beside", 5, 70),
    _on("distilbert", "text-beside", 2, 120),
    _student("gpt2", "looped-language", "text-beside", 2, 200),
    _student_heal("gpt2", "text-beside", 2, 300),
    _on("gpt2", "text-beside", 2, 120),
    _controls("distilbert", "text-beside", 2, 80),
    _controls("gpt2", "text-beside", 2, 120),
)  # fmt: skip
