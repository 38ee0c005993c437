"""Named limits on everything that a seed's bytes can ask for (SPEC.md, section "Limits").

A seed is hostile until proven: each of these is checked before anything of that size is allocated.
Sizes are in bytes unless the name says otherwise.
"""

from __future__ import annotations

FILE_MAX = 1 << 40
HEADER_MAX = 2 << 20
SECTIONS_MAX = 64
STRING_MAX = 255
FEATURE_LEVEL_MAX = 1 << 16
"""Largest level of the format that a seed may ask for: a higher number is damage, not a newer seed."""
GOLDEN_MAX = 1024
GOLDEN_ELEMENTS_MAX = 1 << 22
"""Largest number of elements of all inputs of the golden sample together."""
FOOTPRINT_MAX = 4096
SIGNATURE_MAX = 8192
"""Largest SSHSIG blob: Ed25519 takes 174 bytes, RSA of 4,096 bits 1,107; certificates and larger keys fit too."""

PARTS_MAX = 16
PART_CODED_MAX = 8 << 20
PART_RAW_MAX = 32 << 20
"""Largest part, unpacked: all of a forest is in its skeleton, 13 MB for 409,500 nodes, and 1.6 MB packed."""
TRAINING_RAW_MAX = 2 << 20
"""Largest training graph, unpacked, and largest skeleton beside one: names of both are held while they are compared."""
PROCESSING_RAW_MAX = 16 << 20
"""Largest processing part, unpacked: a tokenizer of 250,000 pieces takes 9 MB."""
DESCRIPTION_MAX = 1 << 16
"""Largest description of processing, without its attachments."""
ATTACHMENTS_MAX = 16
PROCESSING_STEPS_MAX = 16
"""Largest number of steps before a model, and of those behind it."""
PICTURE_SIDE_MAX = 1 << 13
"""Largest height and width of a picture that a description may ask for [pixel]."""
PICTURE_INPUT_MAX = 1 << 24
"""Largest number of pixels of such a picture: as float32 of three channels they take 200 MB."""
FILE_BYTES_MAX = 1 << 20
"""Largest number of bytes that a step reads of each end of a file [B]."""
LABELS_MAX = 1 << 18
"""Largest number of labels or characters of a step."""
TOKENS_MAX = 1 << 15
"""Largest number of tokens of a text that a description may ask for."""
VOCABULARY_MAX = 1 << 20
"""Largest number of tokens that a tokenizer may know."""
PAST_BYTES_MAX = 1 << 32
"""Largest cache of keys and values of a whole context, as text generation holds it: twice [B]."""
PROMPT_PART_MAX = 1 << 12
"""Longest text that a seed may put in front of a prompt or behind it [B]."""
PROMPT_MAX = 1 << 20
"""Longest prompt [B]."""
STOP_TOKENS_MAX = 64
"""Largest number of tokens that end a text."""
SOUND_RATE_MAX = 192_000
"""Largest sampling rate that a description may ask for [Hz]."""
FRAME_MAX = 1 << 24
"""Largest number of samples of sound in a call, and of elements of a state."""
BOXES_MAX = 1 << 12
"""Largest number of boxes of a picture that are compared with each other, and of regions that are looked at."""
RUNS_MAX = 1 << 18
"""Largest number of runs of marked pixels, side by side in a row, of a map in which regions are found."""
NOTE_CELLS_MAX = 1 << 24
"""Largest number of cells of a map of notes, frames times pitches: with 88 pitches, 36 minutes of music."""
NOTE_FRAMES_MAX = 1 << 10
"""Largest number of frames of the silence that ends a note, and of the shortest note."""
NOTES_MAX = 1 << 15
"""Largest number of beginnings of notes that are looked at."""
PITCHES_MAX = 1 << 8
"""Largest number of pitches, from MIDI's number 0."""
LZMA_DICTIONARY_MAX = 1 << 20
METADATA_ENTRIES_MAX = 256
"""Largest number of pairs of metadata."""
METADATA_MAX = 1 << 20
"""Largest size of all keys and values of metadata together: the characters that a reader of Chinese text knows take
80 KB."""

WEIGHTS_MAX = 1 << 40
TENSORS_MAX = 1 << 15
RANK_MAX = 8
HOLES_RAW_MAX = 2 << 20
"""Largest size of the unpacked records of all holes [B]: TENSORS_MAX of them with RANK_MAX dimensions take 1.6 MB."""

CHAIN_MAX = 32
"""Largest number of seeds that a seed is assembled on top of, one after the other."""

STREAMS_MAX = 1 << 12
STREAMS_FREE = 64
"""Number of streams that any seed may have; a stream can take STEPS_MAX steps of its lanes for a few symbols."""
STREAM_SHARE = 1 << 17
"""Size of the weights file for each further stream: one that is full holds no less."""
CHUNKS_MAX = 1 << 17
"""Largest number of chunks of the whole seed."""
CHUNK_DECODED_MAX = 1 << 20
"""Largest decoded chunk: symbols of one byte each for the entropy-coded codecs, raw bytes for others."""
CHUNK_CODED_MAX = 6 << 20
"""Largest coded chunk: 1 Mi symbols may carry 24 raw low bits and 12 coded bits each, and lane states."""

LANES_LOG2_MAX = 15
STEPS_MAX = 1 << 13
"""Largest number of lane steps in one chunk: with fewer lanes, a small file could keep a device busy for hours.

Of codec 8, it bounds live elements, and rows and channels that may be dead, for each lane: up to 17 times the steps.
"""
WAVES_MAX = 1 << 12
"""Largest number of waves of codec 8, in each of which a decoder takes up to sixteen decisions of all its elements."""
WAVE_MAX = 1 << 13
"""Largest number of elements in a wave: a decoder holds up to 600 bytes for each, 425 in NumPy 2.4."""
ADAPTIVE_STREAMS_MAX = 2
"""Largest number of streams of codec 8 in a seed: 983,296 elements of magnitude 14 in WAVES_MAX waves take a core
8.2 s, for 1.5 MB of file."""
ADAPTIVE_ESCAPES_MAX = 1 << 14
"""Largest number of magnitudes from 15 on in a stream of codec 8: a decoder holds 64 bytes for each."""
LIVE_SIDE_MAX = 1 << 15
"""Largest number of live rows and columns of all matrices of a stream of codec 8 together."""
CLASSES_MAX = 256
TABLES_MAX = 64
"""Largest number of probability tables of a symbol stream; a decoder holds 16 KB of each."""
SIDE_MAX = 1 << 18
"""Largest number of rows and columns of all matrices of one symbol stream together."""
LOW_BITS_MAX = 24
DELAY_MAX = 1 << 18
"""Largest delay of a matrix's trellis, in elements; a decoder holds 7 bytes for each."""
FACTORS_MAX = 1024
"""Largest inner dimension of a low-rank product, and number of components of `moments`."""
FACTOR_BYTES_MAX = 4 << 20
"""Largest right factor of `lowrank`, and components of `moments`, as float32."""
