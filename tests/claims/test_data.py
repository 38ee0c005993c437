"""The pure parts of making data: splits by source, choice of characters, prose, descriptions."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from bench.claims.data import characters, english, glyphs, sections, splitting, validation
from bench.claims.data.archives import pins
from bench.claims.data.faces import designs, fonts_to_draw
from bench.claims.data.files import read_arrays, read_text, write_arrays, write_text
from bench.claims.data.fonts import family_of
from bench.claims.data.prose import is_page, is_prose, paragraphs, stem
from bench.claims.inputs import enlarge, glyph_inputs, text_inputs

PROSE = "The size of the window is set by the user, and it is kept for as long as the program runs on this machine."


# Splits


def test_whether_a_source_is_held_out_depends_on_its_name_alone() -> None:
    names = [f"source-{number}" for number in range(2000)]
    held = {name for name in names if splitting.held_out(name, "salt", 5)}
    assert 300 < len(held) < 500
    assert held == {name for name in reversed(names) if splitting.held_out(name, "salt", 5)}
    assert held != {name for name in names if splitting.held_out(name, "other", 5)}


def test_sources_that_share_a_mark_through_others_are_one_group() -> None:
    marks = {"a": ["x"], "b": ["y"], "c": ["x", "z"], "d": ["z"], "e": []}
    assert splitting.groups(marks) == {"a": "a", "b": "b", "c": "a", "d": "a", "e": "e"}


def test_whole_families_of_every_kind_validate() -> None:
    # Three kinds, ten packages of 30 images each; the first two packages of a kind share a family.
    points = np.array([ord("A"), ord("한"), ord("永")], np.uint32)
    fonts = [(kind, package) for kind in range(3) for package in range(10)]
    arrays = {
        "classes": points,
        "font": np.repeat(np.arange(30), 30).astype(np.uint16),
        "y": np.repeat([kind for kind, _ in fonts], 30).astype(np.uint16),
        "fonts": np.array("\n".join(f"p{kind}{package}\tf{kind}{max(1, package)}\tx.ttf" for kind, package in fonts)),
    }
    validates = validation.validating(arrays)
    assert set(arrays["y"][validates]) == {0, 1, 2}
    assert validates.mean() < 0.25
    by_font = validates.reshape(30, 30)
    assert (by_font.all(1) == by_font.any(1)).all()
    assert all(by_font[10 * kind, 0] == by_font[10 * kind + 1, 0] for kind in range(3))


def test_where_one_package_is_all_there_is_its_last_font_validates() -> None:
    arrays = {
        "classes": np.array([ord("A")], np.uint32),
        "font": np.array([0, 0, 1], np.uint16),
        "y": np.zeros(3, np.uint16),
        "fonts": np.array("p\tf\ta.ttf\np\tf\tb.ttf"),
    }
    assert validation.validating(arrays).tolist() == [False, False, True]


def test_every_kind_with_two_groups_has_one_that_is_held_out() -> None:
    kinds = {f"latin-{number}": "latin" for number in range(20)} | {"deva-1": "deva", "deva-2": "deva", "only": "kana"}
    held = splitting.stratified(kinds, "salt", 5)
    assert sum(name.startswith("latin") for name in held) == 4
    assert sum(name.startswith("deva") for name in held) == 1
    assert "only" not in held


def test_families_take_turns_where_there_is_too_much() -> None:
    families = np.array([0, 0, 0, 0, 1, 2, 2])
    assert splitting.spread(families, 3).tolist() == [0, 4, 5]
    assert splitting.spread(families, 5).tolist() == [0, 1, 4, 5, 6]
    assert splitting.spread(families, 99).tolist() == list(range(7))


# Characters


def picture(*, row: int | None = None, column: int | None = None) -> np.ndarray:
    """A bar across or down."""
    image = np.zeros((48, 48), np.uint8)
    if row is not None:
        image[row : row + 6] = 15
    if column is not None:
        image[:, column : column + 6] = 15
    return image


def test_styles_are_no_families() -> None:
    assert family_of("DejaVu Sans Bold Oblique") == family_of("DejaVuSans") == "deja vu sans"
    assert family_of("Noto Serif CJK JP") != family_of("Noto Sans CJK JP")
    assert family_of("Bold") == "bold"


@pytest.mark.parametrize(
    ("character", "kind"),
    [
        *[("A", "latin"), ("7", "latin"), ("ω", "greek"), ("Ж", "cyrillic"), ("ع", "arabic"), ("क", "devanagari")],
        *[
            ("한", "hangul"),
            ("あ", "kana"),
            ("永", "kanji"),
            ("→", "symbol"),
            (" ", None),
            ("\u094d", None),
            ("ก", None),
        ],
    ],
)
def test_characters_have_a_kind_and_marks_and_blanks_have_none(character: str, kind: str | None) -> None:
    assert characters.kind_of(ord(character)) == kind


def test_1000_classes_of_nine_kinds_are_wanted() -> None:
    assert sum(count for count, _ in characters.KINDS.values()) == 1000
    assert len(characters.KINDS) == 9


def test_candidates_stand_in_enough_families_and_the_commonest_come_first() -> None:
    families = {ord("Ж"): 40, ord("Д"): 11, ord("ѝ"): 12, ord("あ"): 400}
    found = characters.candidates(families, 12)
    assert found["cyrillic"] == [ord("Ж"), ord("ѝ")]
    assert found["kana"] == [ord("あ")]


def test_comparable_images_don_t_depend_on_how_dark_they_are() -> None:
    dark = picture(row=10)
    pale = dark // 3
    first, second, empty = characters.comparable(np.stack([dark, pale, np.zeros_like(dark)]))
    assert first @ second == pytest.approx(1, abs=1e-5)
    assert not empty.any()


def test_characters_that_fonts_draw_alike_are_one_shape() -> None:
    likeness = characters.Likeness(3)
    likeness.add(np.stack([picture(row=10), picture(row=10), picture(column=30)]))
    likeness.add(np.stack([picture(row=20), picture(row=20), np.zeros((48, 48), np.uint8)]))
    alike = likeness.alike()
    assert alike[0, 1]
    assert not alike[0, 2]


def test_the_first_of_two_shapes_is_chosen_and_what_too_few_fonts_draw_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = characters.KINDS["latin"][1], characters.KINDS["greek"][1]
    monkeypatch.setattr(characters, "KINDS", {"latin": (2, spans[0]), "greek": (1, spans[1])})
    order = [ord(letter) for letter in "ABCΑΩ"]
    alike = np.eye(5, dtype=bool)
    alike[0, 3] = alike[3, 0] = True  # the Greek capital alpha
    usable = {point: point != ord("B") for point in order}
    found = {"latin": order[:3], "greek": order[3:]}
    assert characters.choose(found, order, alike, usable) == [ord("A"), ord("C"), ord("Ω")]
    with pytest.raises(ValueError, match="greek: 0 characters"):
        characters.choose({"latin": order[:3], "greek": order[3:4]}, order, alike, usable)


def test_boxes_for_what_is_missing_and_copies_within_a_font_are_dropped() -> None:
    shapes = np.stack([picture(row=number) for number in (2, 12, 22, 32)] + [picture(column=20)])
    labels = np.arange(5)
    means = characters.templates(shapes, labels, 5)
    assert characters.faithful(shapes, labels, means).all()
    boxed = shapes.copy()
    boxed[3] = boxed[4]  # two characters with one picture
    assert characters.faithful(boxed, labels, means).tolist() == [True, True, True, False, False]


def test_a_letter_drawn_as_another_is_dropped_and_a_font_of_another_encoding_is_dropped_whole() -> None:
    shapes = np.stack([picture(row=number) for number in (2, 12, 22, 32)] + [picture(column=20)])
    labels = np.arange(5)
    means = characters.templates(shapes, labels, 5)
    assert characters.faithful(shapes[:4], np.array([0, 1, 2, 4]), means).tolist() == [True, True, True, False]
    assert not characters.faithful(shapes, np.roll(labels, 1), means).any()


def test_fonts_that_draw_alike_have_one_design_also_through_others() -> None:
    angle = np.array([0.0, 0.1, 0.2, 1.5])
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    # Neighbours correlate by cos(0.1) = .995, the first and the third by .980.
    assert designs(rows).tolist() == [0, 0, 0, 3]


def test_enough_fonts_of_each_character_are_drawn_and_families_come_before_styles() -> None:
    fonts = [(f"package-{number // 2}", f"family-{number // 2}", f"style-{number % 2}") for number in range(20)]
    fonts.append(("wide", "wide", "regular"))
    having = [np.array([0, 1])] * 20 + [np.array([0, 1, 2])]
    few = fonts_to_draw(fonts, having, set(), (5, 5), 2, widest=False)
    assert len({family for _, family, _ in few}) == len(few) == 6  # five, and the only one that has the third
    assert fonts_to_draw(fonts, having, set(), (1, 1), 2, widest=True) == [("wide", "wide", "regular")]
    many = fonts_to_draw(fonts, having, {"package-0"}, (12, 9), 2, widest=False)
    assert {family for _, family, _ in many} == {"wide", *(f"family-{number}" for number in range(10))}
    assert [path for package, _, path in many if package == "package-0"] == ["style-0", "style-1"]


# Texts


def test_prose_is_told_from_code_tables_and_other_languages() -> None:
    assert is_prose(PROSE)
    assert not is_prose(PROSE[:50])
    assert not is_prose("int main(void) { return printf(1, 2, 3) + sizeof(x) - 0x4242; } // 17 lines of it, at 20 %")
    assert not is_prose("Die Fenster werden von Benutzern bestimmt und bleiben so lange erhalten wie Programme laufen.")


def test_paragraphs_of_a_page_lose_their_tags_and_scripts() -> None:
    page = (
        f"<html><script>var a = '{PROSE}';</script><p>{PROSE.replace('window', '<b>window</b>')}</p><pre>x</pre></html>"
    )
    assert paragraphs("doc/a.html", page.encode()) == [PROSE]
    assert paragraphs("doc/a.html.gz", gzip.compress(page.encode())) == [PROSE]
    assert paragraphs("doc/a.html.gz", b"no gzip") == []


@pytest.mark.parametrize(
    ("path", "size", "wanted"),
    [
        ("usr/share/doc/a/index.html", 1000, True),
        ("usr/share/doc/a/manual.txt.gz", 1000, True),
        ("usr/share/doc/a/changelog.gz", 1000, False),
        ("usr/share/doc/a/copyright", 1000, False),
        ("usr/share/doc/a/_modules/x.html", 1000, False),
        ("usr/share/doc/a/de/index.html", 1000, False),
        ("usr/share/doc/a/index.html", 4_000_000, False),
        ("usr/share/doc/a/logo.png", 1000, False),
    ],
)
def test_pages_of_english_are_read(path: str, size: int, wanted: bool) -> None:
    assert is_page(path, size) is wanted


def test_versions_of_one_manual_are_on_one_side() -> None:
    assert stem("python3.11-doc") == stem("python-doc")
    assert stem("llvm-14-doc") == stem("llvm-15-doc")
    assert english.is_held("gcc-11-doc") == english.is_held("gcc-12-doc")


def test_no_paragraph_stands_on_both_sides_and_the_held_out_side_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(english, "is_held", lambda name: name == "held-doc")
    own = [f"{letter} paragraph of its own: {PROSE * 5}" for letter in "ABC"]
    packages = [("held-doc", [[own[0], own[1]]]), ("train-doc", [[own[1], own[2]], [own[2]]])]
    held, train = english.split(iter(packages))
    assert held == [f"{own[0]}\n{own[1]}"]
    assert train == [own[2]]


def test_one_package_gives_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(english, "MOST", 1000)
    monkeypatch.setattr(english, "is_held", lambda name: False)
    texts = [[f"{number} {PROSE * 8}"] for number in range(9)]
    _, train = english.split(iter([("a-doc", texts)]))
    assert sum(map(len, train)) == 1000


def test_documents_are_cut_into_pieces_between_documents() -> None:
    assert list(english.pieces(["a" * 40, "b" * 40, "c" * 300, "d"], 100)) == [["a" * 40, "b" * 40], ["c" * 300], ["d"]]


PACKAGES = """Package: alpha
Source: alpha-source (1.2)
Section: games

Package: beta
Section: contrib/science

Package: gamma
Section: games
"""
TRANSLATIONS = """Package: alpha
Description-md5: 1
Description-en: a game of tiles
 Move the tiles until they stand in order.
 .
 There are ten levels.

Package: beta
Description-md5: 2
Description-de: ein Programm

Package: gamma
Description-en: another game
"""


def test_descriptions_are_joined_with_their_sections() -> None:
    text = "a game of tiles Move the tiles until they stand in order. There are ten levels."
    assert sections.join(PACKAGES, TRANSLATIONS) == [
        sections.Description("alpha-source", "games", text),
        sections.Description("gamma", "games", "another game"),
    ]


def test_sections_with_enough_descriptions_are_classes_and_copies_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "LEAST", 3)
    texts = [f"{number} {PROSE}" for number in range(4)]
    found = [sections.Description(f"s{number}", "games", text) for number, text in enumerate(texts)]
    found += [sections.Description("copy", "games", texts[0]), sections.Description("few", "science", PROSE)]
    found += [sections.Description(f"o{number}", "oldlibs", f"{number} old {PROSE}") for number in range(4)]
    rows, names = sections.select(found)
    assert names == ["games"]
    assert sorted(row.text for row in rows) == texts
    assert sections.select(reversed(found)) == (rows, names)


# Files and inputs


def test_what_is_written_is_read_again_and_equal_data_gives_equal_bytes(tmp_path: Path) -> None:
    arrays = {"x": np.arange(6, dtype=np.uint8).reshape(2, 3), "names": np.array("a\tb")}
    for name in ("first", "second"):
        write_arrays(tmp_path / name, arrays)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    found = read_arrays(tmp_path / "first")
    assert found["x"].tolist() == arrays["x"].tolist()
    assert str(found["names"]) == "a\tb"
    write_text(tmp_path / "text", "añ\0b")
    assert read_text(tmp_path / "text") == "añ\0b"


def test_enlarging_keeps_a_plain_area_and_the_middle_of_a_shape() -> None:
    scale = enlarge()
    assert scale.shape == (64, 48)
    assert np.allclose(scale.sum(1), 1)
    assert np.allclose(scale @ np.arange(48), np.clip((np.arange(64) + 0.5) * 0.75 - 0.5, 0, 47))


def test_glyphs_become_three_equal_channels_of_normalised_ink() -> None:
    stored = np.zeros((2, 48, 24), np.uint8)
    stored[1] = 0xFF
    found = glyph_inputs(stored)
    assert found.shape == (2, 3, 64, 64)
    assert found.dtype == np.float32
    assert np.allclose(found[0], -0.75)
    assert np.allclose(found[1], 1.75)


def test_the_left_pixel_of_a_stored_byte_is_its_upper_half() -> None:
    stored = np.zeros((1, 48, 24), np.uint8)
    stored[:, :, 0] = 0xF0
    found = glyph_inputs(stored)[0, 0]
    assert found[32, 0] > 1.7
    assert found[32, 4] < -0.7


def test_blanks_of_texts_are_masked_and_cut_off() -> None:
    feeds = text_inputs(np.array([[2, 7, 3, 0, 0], [2, 3, 0, 0, 0]], np.uint16))
    assert feeds["input_ids"].tolist() == [[2, 7, 3], [2, 3, 0]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert feeds["input_ids"].dtype == np.int64


@pytest.mark.parametrize("name", ["fonts", "docs"])
def test_lists_of_packages_name_exact_versions_once(name: str) -> None:
    found = pins(name)
    assert len(found) > 100
    assert found == sorted(set(found))
    assert all(version[:1].isdigit() for _, version in found)


def test_1000_distinct_classes_are_kept_in_the_wanted_shares() -> None:
    kept = glyphs.classes()
    assert len(set(kept)) == 1000
    kinds = [characters.kind_of(point) for point in kept]
    assert {kind: kinds.count(kind) for kind in characters.KINDS} == {
        kind: n for kind, (n, _) in characters.KINDS.items()
    }


def test_no_package_and_no_family_of_fonts_stands_on_both_sides() -> None:
    fonts = glyphs.fonts()
    assert {package for _, package, _, _ in fonts} == {package for package, _ in pins("fonts")}
    for column in (1, 2):
        sides = [{font[column] for font in fonts if font[0] == side} for side in ("train", "held")]
        assert min(map(len, sides)) > 30
        assert sides[0].isdisjoint(sides[1])
