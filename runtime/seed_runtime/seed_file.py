"""What a seed's file holds, and its base's where it has one: header, parts, skeleton, bytes of weights."""

from __future__ import annotations

import builtins
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from seed_runtime import golden, skeletons, trust
from seed_runtime.assembly.assemble import Progress, decode_streams
from seed_runtime.assembly.base_file import MappedWeights, holes_of_base
from seed_runtime.backends import Feeds, TensorSpec, input_spec, output_specs
from seed_runtime.codecs import BY_NAME, CODECS, BaseWeights
from seed_runtime.errors import DigestError, InputError, LimitError, MissingBaseError, UnsupportedError
from seed_runtime.format.header import Header, build_on
from seed_runtime.format.parts import PROCESSING, TFLITE_SKELETON, TRAINING, file_of
from seed_runtime.format.pipe import PipeReader
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.reader import SeedReader
from seed_runtime.limits import PROCESSING_RAW_MAX, TRAINING_RAW_MAX
from seed_runtime.memory.footprint import Footprint

if TYPE_CHECKING:
    from seed_runtime.skeletons.training import TrainingInfo

if TYPE_CHECKING:
    from seed_runtime.processing import Processing


class SeedFile:
    """A seed whose header has been checked; parts and chunks are checked when they are read.

    Any method that reads on can raise FormatError (damaged), UnsupportedError (made for a newer runtime, or for a base
    that wasn't given), TrustError (not accepted here) and OSError.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        *,
        enforce: bool = True,
        base: SeedFile | None = None,
    ) -> None:
        """Open a seed: read and check its header (see `seed_runtime.open`)."""
        self._enforce, self._base = enforce, base
        if isinstance(source, str | os.PathLike):
            self.path: Path | None = Path(source)
            with builtins.open(self.path, "rb", buffering=0) as file:
                self._take(SeedReader(file, self.path.name))
        else:
            self.path = None
            # A pipe's name may be the number of its descriptor.
            name = getattr(source, "name", None)
            self._pipe: PipeReader | None = PipeReader(source, name if name and isinstance(name, str) else "seed")
            self._take(self._pipe)

    def _take(self, reader: SeedReader) -> None:
        self.name = reader.name
        self.header: Header = reader.header
        """Its header, with parts and holes of the base that was given, where it leaves them out."""
        self.digest = reader.digest
        self.file_size, self.header_size = reader.file_size, reader.header_size
        self._signed = reader.signed
        self.shares_parts = not self.header.has_parts
        """True if its parts and holes are those of its base."""
        if self._base is not None:
            if self.header.base is None:
                raise InputError(f"{self.name} is a whole seed and has no base; run it by itself")
            self.header = build_on(self.header, self._base.header, self._base.digest, (self.name, self._base.name))
        self._skeleton: skeletons.SkeletonInfo | None = None
        self._training: bytes | None = None
        self._training_info: TrainingInfo | None = None
        # Whatever it is opened for: what one command refuses, all do.
        self.golden = None if self.header.golden is None else golden.Golden.unpack(self.header.golden)
        """The golden sample; None where the seed holds none."""
        self._footprint = None
        if self.header.footprint is not None:
            self._footprint = Footprint.unpack(Cursor(self.header.footprint, "header, FOOTPRINT"))
        if self._enforce:
            self.check_trust()

    def enforce_trust(self) -> None:
        """Require from now on that this machine accepts the seed, as where it is opened so."""
        self.check_trust()
        self._enforce = True

    def check_trust(self) -> str | None:
        """Check that this machine accepts the seed, and return its signer (see `trust.check`)."""
        return trust.check(self.header, self.digest.hex(), self._signed, self.name, self._check_base())

    def _check_base(self) -> trust.BaseCheck | None:
        return None if self._base is None else self._base.check_trust

    def note_made_of_this(self, digest: bytes) -> None:
        """Let this machine accept a seed that it made itself out of this one, for as long as it accepts this one.

        Args:
            digest: of the seed that was made, before anybody else could have changed its file.

        Raises:
            TrustError: this seed isn't accepted, or that can't be noted.
        """
        self.check_trust()
        trust.note_made(self.header, digest.hex())

    def _accept(self) -> None:
        if self._enforce:
            trust.accept(self.header, self.digest.hex())

    def signature(self) -> trust.Verdict:
        """Return who signed it, and whether this machine accepts it."""
        return trust.assess(self.header, self.digest.hex(), self._signed, self.name, self._check_base())

    @property
    def kind(self) -> skeletons.Kind:
        """Kind of its skeleton: the files that its model is assembled to, and the backend that runs it."""
        self._need_base()
        return skeletons.of(self.header)

    def _need_base(self) -> None:
        """Raise MissingBaseError where the seed is of no use without its base, which was not given."""
        if self.header.base is not None and self._base is None:
            raise MissingBaseError(self.name, self.header.base.digest)

    @contextlib.contextmanager
    def _reader(self) -> Iterator[SeedReader]:
        """Give a reader of the seed that stands behind the header; it reads its base's parts where it has none."""
        self._need_base()
        with contextlib.ExitStack() as stack:
            reader = stack.enter_context(self._own_reader())
            if self._base is not None:
                reader.build_on(stack.enter_context(self._base._reader()))
            yield reader

    @contextlib.contextmanager
    def _own_reader(self) -> Iterator[SeedReader]:
        if self.path is None:
            pipe, self._pipe = self._pipe, None
            if pipe is None:
                raise InputError("a seed from a pipe can be read only once; save it to a file first")
            yield pipe
            return
        with builtins.open(self.path, "rb", buffering=0) as file:
            reader = SeedReader(file, self.path.name)
            # If it was replaced since it was opened, its weights must not be stored under the other one's digest.
            if reader.digest != self.digest:
                raise InputError(f"{self.name} was replaced by another seed meanwhile; run the command again")
            yield reader

    def decode(
        self, base: BaseWeights | None, write: Callable[[memoryview], object], progress: Progress | None = None
    ) -> None:
        """Decode the weights, in the order of the holes and without the gaps between them, and check their digest.

        Args:
            base: the base's weights by the numbers of its own holes; None for a whole seed.
            write: takes the bytes of the holes.
            progress: called with the bytes of the weights done so far, and all of them.

        Raises:
            FormatError: the seed is damaged; bytes that were written are not to be used.
        """
        self._need_base()
        if base is not None and self._base is not None and not self.shares_parts:
            base = MappedWeights(base, holes_of_base(self.header.holes, self._base.header.holes))
        with self._reader() as reader:
            for part in reader.header.parts:
                reader.skip_part(part)
            digest = decode_streams(
                reader.header, reader.chunks, write, progress, skip=lambda size: None, base=base, cores=1
            )
            reader.finish()
        if digest != self.header.weights.digest:
            raise DigestError("assembled weights", self.header.weights.digest, digest)

    def skeleton_bytes(self) -> bytes | memoryview:
        """Return the model without its weights; of a pipe, read ahead of its turn and held until then."""
        return self._part_bytes(0)

    def _part_bytes(self, index: int) -> bytes | memoryview:
        if self._base is not None and self.shares_parts:
            return self._base._part_bytes(index)
        if self.path is None and self._pipe is not None:
            return self._pipe.read_ahead(index)
        with self._reader() as reader:
            for part in reader.header.parts[:index]:
                reader.skip_part(part)
            return reader.part_bytes(reader.header.parts[index])

    def training_graph(self) -> bytes:
        """Return the unpacked training graph, which isn't checked yet; it is read once.

        Raises:
            LimitError: it is too large; nothing of it was read.
            UnsupportedError: the seed has none.
            InputError: it comes from a pipe.
        """
        found = [index for index, part in enumerate(self.header.parts) if part.kind == TRAINING.number]
        if not found:
            if self.header.skeleton.kind == TFLITE_SKELETON.number:
                raise UnsupportedError(
                    f"{self.name} holds a TFLite model, which can't be trained on a device; export an ONNX model with "
                    f"--finetune-graph"
                )
            needed = "--finetune-graph"
            if any(stream.codec == BY_NAME["integers"].number for stream in self.header.streams):
                needed += " and --dtype fp32, as only floats are trained"
            raise UnsupportedError(f"{self.name} has no training graph; export its model again with {needed}")
        if self.path is None:
            raise InputError("a seed is read more than once to train it, and a pipe only once; save it to a file first")
        if (size := self.header.parts[found[0]].raw_size) > TRAINING_RAW_MAX:
            raise LimitError("training graph", size, TRAINING_RAW_MAX)
        if self._training is None:
            self._training = bytes(self._part_bytes(found[0]))
        return self._training

    def processing_bytes(self) -> bytes | memoryview | None:
        """Return the unpacked part of what stands before and behind the model, not checked yet; None without one.

        Raises:
            LimitError: it is too large; nothing of it was read.
        """
        found = [index for index, part in enumerate(self.header.parts) if part.kind == PROCESSING.number]
        if not found:
            return None
        if (size := self.header.parts[found[0]].raw_size) > PROCESSING_RAW_MAX:
            raise LimitError("processing", size, PROCESSING_RAW_MAX)
        return self._part_bytes(found[0])

    def processing(self) -> Processing | None:
        """Return what stands before and behind the model, checked; None where the seed has no description of it.

        Raises:
            FormatError: it breaks a rule of SPEC.md, or is of another model.
        """
        data = self.processing_bytes()
        if data is None:
            return None
        # Most commands need nothing of it.
        from seed_runtime import processing

        info = self.skeleton()
        outputs = [spec for value in info.outputs for spec in output_specs(value)]
        return processing.parse(data, self.inputs(), outputs, self.metadata, self.optional_inputs())

    def training_info(self) -> TrainingInfo:
        """Return what the training graph says of itself, checked; it is scanned once.

        Raises:
            FormatError: it is none that belongs to the model.
            UnsupportedError: the seed has none.
        """
        if self._training_info is None:
            # Imported here: of all that opens a seed, only fine-tuning needs it.
            from seed_runtime.skeletons.training import scan_training

            graph, skeleton = self.training_graph(), bytes(self.skeleton_bytes())
            self._training_info = scan_training(graph, skeleton, self.header.holes)
        return self._training_info

    def skeleton(self) -> skeletons.SkeletonInfo:
        """Return what the skeleton says of inputs, outputs and weights, checked; nothing is decoded."""
        if self._skeleton is None:
            info = self.kind.scan(self.skeleton_bytes())
            self.kind.layout.check(info, self.header.holes)
            self._check_inputs(info)
            # Of a forest of trees a scan takes seconds on a small device; the digest says that it stays the same.
            self._skeleton = info
        return self._skeleton

    def trellises(self) -> list[bool]:
        """Return whether each hole's weights are on a trellis; of a stream its first chunk is read, at most."""
        found: list[bool] = []
        with self._reader() as reader:
            for part in self.header.parts:
                reader.skip_part(part)
            for index, stream in enumerate(self.header.streams):
                head, codec = reader.head(index, stream), CODECS.get(stream.codec)
                holes = self.header.holes[stream.first : stream.first + stream.holes]
                if codec is None or codec.trellises is None or head is None:
                    found += [False] * len(holes)
                else:
                    found += codec.trellises(holes, head, f"stream {index}")
        return found

    def is_intact(self, copy: Path) -> bool:
        """Return whether an assembled copy is, bit for bit, what the seed gives."""
        if not self.kind.layout.is_intact(copy, self.skeleton_bytes(), self.header):
            return False
        files = [(index, file_of(part.kind)) for index, part in enumerate(self.header.parts)]
        return all(
            (copy / name).read_bytes() == self._part_bytes(index) for index, name in files[1:] if name is not None
        )

    def _check_inputs(self, info: skeletons.SkeletonInfo) -> None:
        """Raise FormatError if golden sample or footprint are of other inputs than the skeleton has."""
        if self.golden is not None:
            self.golden.check(info.inputs)
        if self._footprint is not None:
            self._footprint.check(info.inputs)

    def inputs(self) -> tuple[TensorSpec, ...]:
        """Return what every run must give the model; nothing is assembled."""
        return tuple(input_spec(value) for value in self.skeleton().inputs)

    def optional_inputs(self) -> tuple[TensorSpec, ...]:
        """Return the inputs that have a default, which a run may give; nothing is assembled."""
        return tuple(input_spec(value) for value in self.skeleton().optional_inputs)

    def metadata(self) -> dict[str, str]:
        """Return the texts that the model's maker gave programs, such as class names; nothing is assembled."""
        return dict(self.skeleton().metadata)

    def golden_shapes(self) -> Feeds | None:
        """Return arrays like the golden sample's inputs, for plans, without memory; None where the seed holds none."""
        self._need_base()
        return None if self.golden is None else self.golden.shapes(self.inputs())

    def footprint(self) -> Footprint | None:
        """Return what sessions of this model need, as measured when it was exported; None where the seed holds none."""
        return self._footprint
