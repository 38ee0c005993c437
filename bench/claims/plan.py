"""What is trained, healed and measured on a machine with four cards or fewer: what, after what, where, how long.

Lanes run side by side, the jobs of a lane one after the other. What matters most comes first in each lane, and no
healing waits for another one: students and random starts get the bytes of the goal, as the seed beside them does.
Teachers whose checkpoints are there aren't trained again. `bench.claims.hold` runs it.
"""

from __future__ import annotations

from dataclasses import dataclass

TINY_SECONDS = 4.0  # of healing where everything is tiny
# Half of the inputs mixed, vectors rounded halfway, no higher rates in short runs. With these BERT-tiny's seed was
# right in .8326 (its teacher in .8383), without in .8265 (.8384); students of vision in .8770 and .8822, without in
# .8560 and .8713; DistilBERT's damage at .45 of its run was .0514, without .0577. Large convolutional networks weren't
# compared in long runs: folded at .75, ResNet-50's damage was .013 before and .020 at the end. Short ones lose by them,
# so that a comparison of minutes says nothing of a run of 40,000 steps.
MIXED = "--set passes=0 --set fold=0.5 --set travel=0"
# Measuring the memory of a DistilBERT takes 82 s, coding and cutting it 15 s, judging it 20 s, and up to five sizes are
# computed where it ends above its goal: it was ended 108 s after its healing, before its seed was written.
AFTER_DISTILBERT = 190.0
AFTER_GPT2 = 240.0  # by its weights and sizes; not measured
# A teacher is trained on for as many steps as the healing takes: in small batches, and recorded, as healing's are.
# Starting each kernel by itself took 25 ms a step, and healing's steps cost less and less from its first cut on.
MANY = "--recorded"
MANY_VISION = f"{MANY} --batch 64"


@dataclass(frozen=True)
class Job:
    """One program's run.

    Attributes:
        name: of its folder and log.
        lane: jobs of one lane follow each other.
        card: that the lane is on, of four; of two, card 2 is 0, and so on.
        seconds: that it is given, its preparation included but not the judging after it.
        command: program under `bench.claims` and its options; `{out}` is the folder of all jobs.
        needs: names of jobs that must have ended well, whatever lane they are in.
        after: that it takes after its seconds, where that is more than others of its program take.
    """

    name: str
    lane: str
    card: int
    seconds: float
    command: str
    needs: tuple[str, ...] = ()
    after: float = 0.0

    @property
    def program(self) -> str:
        """The module under `bench.claims`."""
        return self.command.split()[0]


def _teacher(name: str, lane: str, card: int, seconds: float, options: str = "", needs: tuple[str, ...] = ()) -> Job:
    return Job(name, lane, card, seconds, f"teachers {name} {options}", needs)


def _on(name: str, lane: str, card: int, seconds: float, options: str = "") -> Job:
    """Train a teacher on: a seed is measured by the better of both."""
    return Job(f"{name}-on", lane, card, seconds, f"teachers {name} --start {{out}}/{name} {options}", (name,))


def _heal(name: str, lane: str, card: int, seconds: float, options: str = "", after: float = 0.0) -> Job:
    return Job(f"{name}-heal", lane, card, seconds, f"heal --start {{out}}/{name} {options}", (name,), after)


def _student(name: str, student: str, lane: str, card: int, seconds: float, options: str = "") -> Job:
    command = f"students {student} --teacher {{out}}/{name} {options}"
    return Job(f"{name}-student", lane, card, seconds, command, (name,))


def _student_heal(name: str, lane: str, card: int, seconds: float, options: str = "") -> Job:
    """Heal a student to the bytes of its teacher's goal; it goes on learning from the teacher."""
    command = f"heal --start {{out}}/{name}-student --teacher {{out}}/{name} {options}"
    return Job(f"{name}-student-heal", lane, card, seconds, command, (name, f"{name}-student"))


def _random_heal(name: str, lane: str, card: int, seconds: float, options: str = "") -> Job:
    """Heal the same network from random weights to the same bytes: all but the start is as for the seed."""
    command = f"heal --start {{out}}/{name} --random --teacher {{out}}/{name} {options}"
    return Job(f"{name}-random-heal", lane, card, seconds, command, (name,))


def _controls(name: str, lane: str, card: int, seconds: float) -> Job:
    return Job(f"{name}-controls", lane, card, seconds, f"controls --start {{out}}/{name}", (name,))


JOBS = (
    _teacher("resnet50", "resnet50", 0, 330),
    _heal("resnet50", "resnet50", 0, 1000),
    _teacher("mobilenetv2", "mobilenetv2", 1, 260),
    _heal("mobilenetv2", "mobilenetv2", 1, 1080),
    Job("tokens", "distilbert", 2, 60, "tokens"),
    _teacher("distilbert", "distilbert", 2, 500, "--masked-share 0.75", ("tokens",)),
    _heal("distilbert", "distilbert", 2, 720, MIXED, AFTER_DISTILBERT),
    # Masked words need no teacher: they are over when there is one.
    Job(
        "berttiny-words", "berttiny", 3, 490,
        "teachers berttiny --out {out}/berttiny --masked-only", ("tokens",),
    ),
    _teacher(
        "berttiny", "berttiny", 3, 120, "--masked-share 0.01 --teacher {out}/distilbert",
        ("berttiny-words", "distilbert"),
    ),
    _heal("berttiny", "berttiny", 3, 230, MIXED),
    _on("berttiny", "berttiny", 3, 100),
    _student("berttiny", "small-text", "berttiny", 3, 80, "--masked-share 0.4"),
    _student_heal("berttiny", "berttiny", 3, 150, MIXED),
    _random_heal("berttiny", "berttiny", 3, 150, MIXED),
    _controls("berttiny", "berttiny", 3, 50),
    # BERT-tiny learned DistilBERT's answers: it is the student at the bytes of DistilBERT's seed.
    Job(
        "distilbert-student-heal", "text-beside", 3, 130,
        f"heal --start {{out}}/berttiny --teacher {{out}}/distilbert {MIXED}", ("berttiny", "distilbert"),
    ),
    _on("distilbert", "text-beside", 3, 120),
    _controls("distilbert", "text-beside", 3, 80),
    _student("mobilenetv2", "small-vision", "mobilenetv2-beside", 3, 150),
    _student_heal("mobilenetv2", "mobilenetv2-beside", 3, 400, MIXED),
    _on("mobilenetv2", "mobilenetv2-beside", 3, 120),
    _random_heal("mobilenetv2", "mobilenetv2-beside", 3, 200),
    _controls("mobilenetv2", "mobilenetv2-beside", 3, 60),
    _student("resnet50", "small-vision", "resnet50-beside", 3, 150),
    _student_heal("resnet50", "resnet50-beside", 3, 400, MIXED),
    _on("resnet50", "resnet50-beside", 3, 180),
    _controls("resnet50", "resnet50-beside", 3, 70),
    _random_heal("resnet50", "resnet50-beside", 3, 200),
    # A language model alone takes all of a card for all of the time: `--only gpt2 ...` on a machine of its own.
    _teacher("gpt2", "gpt2", 0, 520, "--compile", ("tokens",)),
    _heal("gpt2", "gpt2", 0, 720),
    _student("gpt2", "looped-language", "gpt2-beside", 1, 400),
    _student_heal("gpt2", "gpt2-beside", 1, 600),
    _on("gpt2", "gpt2-on", 2, 400),
    _controls("gpt2", "gpt2-controls", 3, 200),
)  # fmt: skip

# The teachers of MobileNetV2 and BERT-tiny are there; with them the controls that were measured beside them stay right.
# What is farthest from its goal has a card of its own for all of the time.
NEXT = (
    _teacher("resnet50", "resnet50", 0, 330),
    _heal("resnet50", "resnet50", 0, 1060, MIXED),
    _teacher("mobilenetv2", "mobilenetv2", 1, 260),
    _heal("mobilenetv2", "mobilenetv2", 1, 1380, MIXED),
    Job("tokens", "distilbert", 2, 60, "tokens"),
    _teacher("distilbert", "distilbert", 2, 415, "--masked-share 0.8", ("tokens",)),
    _heal("distilbert", "distilbert", 2, 830, MIXED, AFTER_DISTILBERT),
    _teacher("berttiny", "berttiny", 3, 120, "--masked-share 0.01", ("tokens",)),
    _heal("berttiny", "berttiny", 3, 500, MIXED),
    _random_heal("berttiny", "berttiny", 3, 500, MIXED),
    _on("berttiny", "berttiny", 3, 150, MANY),
    _on("mobilenetv2", "mobilenetv2-on", 3, 900, MANY_VISION),
    _on("resnet50", "resnet50-on", 3, 1000, MANY_VISION),
    _student("resnet50", "small-vision", "resnet50-beside", 3, 120),
    _student_heal("resnet50", "resnet50-beside", 3, 500, MIXED),
    _random_heal("resnet50", "resnet50-beside", 3, 150, MIXED),
    _controls("resnet50", "resnet50-beside", 3, 70),
    _controls("distilbert", "text-beside", 3, 80),
    _on("distilbert", "text-beside", 3, 700, MANY),
)

# A hold that goes on with what the one before left: all teachers are there, and seeds are trained on from half of their
# run, at their size and in their cut networks. Settings are those that a state began with.
REWOUND = "--rewind 0.5"
AFTER_NEXT = (
    _teacher("resnet50", "resnet50", 0, 330),
    _heal("resnet50", "resnet50", 0, 1380, f"{MIXED} {REWOUND}"),
    _teacher("mobilenetv2", "mobilenetv2", 1, 260),
    _heal("mobilenetv2", "mobilenetv2", 1, 1380, f"{MIXED} {REWOUND}"),
    Job("tokens", "distilbert", 2, 60, "tokens"),
    _teacher("distilbert", "distilbert", 2, 415, "", ("tokens",)),
    _heal("distilbert", "distilbert", 2, 1180, f"{MIXED} {REWOUND}", AFTER_DISTILBERT),
    _teacher("berttiny", "berttiny", 3, 120, "", ("tokens",)),
    _heal("berttiny", "berttiny", 3, 600, f"{MIXED} {REWOUND}"),
    _on("resnet50", "resnet50-on", 3, 1330, MANY_VISION),
    _on("mobilenetv2", "mobilenetv2-on", 3, 1330, MANY_VISION),
    _on("distilbert", "distilbert-on", 3, 1100, MANY),
)

# A language model alone on a machine; its run is longer than a hold, and the same plan goes on with it in a second one.
GPT2 = (
    Job("tokens", "gpt2", 0, 60, "tokens"),
    _teacher("gpt2", "gpt2", 0, 520, "--compile", ("tokens",)),
    # 600 s of it in the first hold, what is left in the second one.
    _heal("gpt2", "gpt2", 0, 1190, f"{MIXED} --whole 1750", AFTER_GPT2),
    _student("gpt2", "looped-language", "gpt2-beside", 1, 400),
    _student_heal("gpt2", "gpt2-beside", 1, 600, MIXED),
    _on("gpt2", "gpt2-on", 2, 800, "--compile"),
    _controls("gpt2", "gpt2-controls", 3, 200),
)

PLANS = {"all": JOBS, "next": NEXT, "after-next": AFTER_NEXT, "gpt2": GPT2}
"""By name: all rows from nothing, the next hold, the one after it, and the language model's."""
