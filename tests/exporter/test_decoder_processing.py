"""What the package of a decoder says of text generation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seed_exporter.processing import chat_template, decoder
from seed_exporter.processing.chat_template import render
from seed_exporter.processing.package import Package
from seed_runtime.backends import TensorSpec
from tests.support.decoder_model import PAST

TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def found(folder: Path, files: dict[str, Any], **inputs: str) -> dict[str, Any] | None:
    for name, value in files.items():
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
    names = ["input_ids", "attention_mask", "position_ids", *PAST, *inputs]
    given = {name: TensorSpec(name, "int64", (1, None)) for name in names}
    made = {name: TensorSpec(name, "float32", (1, None, 8)) for name in ("logits", *PAST.values())}
    package = Package(folder, given, made, {})
    description = decoder.read(package)
    return None if description is None else description[0]["generation"]


FILES: dict[str, Any] = {
    "tokenizer.json": "{}",
    "config.json": {"max_position_embeddings": 2048, "eos_token_id": 7},
    "tokenizer_config.json": {"chat_template": TEMPLATE},
    "generation_config.json": {"eos_token_id": [2, 0], "do_sample": True, "temperature": 0.6, "top_p": 0.9},
}


def test_names_length_template_stop_tokens_and_sampling_are_read(tmp_path: Path) -> None:
    assert found(tmp_path, FILES) == {
        "fills": {"ids": "input_ids", "mask": "attention_mask", "positions": "position_ids"},
        "reads": {"scores": "logits"},
        "past": PAST,
        "context": 2048,
        "tokenizer": "tokenizer.json",
        "before": "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n",
        "after": "<|im_end|>\n<|im_start|>assistant\n",
        "stop": [2, 0],
        "temperature": 0.6,
        "top_p": 0.9,
    }


def test_the_best_token_is_taken_where_the_package_does_not_sample(tmp_path: Path) -> None:
    words = found(tmp_path, FILES | {"generation_config.json": {"top_k": 40, "repetition_penalty": 1.1}})
    assert words is not None
    assert {"temperature", "top_k"} & words.keys() == set()
    assert (words["repetition_penalty"], words["stop"]) == (1.1, [7])


def test_a_template_may_stand_in_a_list_or_a_file_of_its_own(tmp_path: Path) -> None:
    listed = {"chat_template": [{"name": "default", "template": "[{{ bos_token }}{{ messages[0].content }}]"}]}
    words = found(tmp_path, FILES | {"tokenizer_config.json": listed | {"bos_token": {"content": "<s>"}}})
    assert words is not None
    assert (words["before"], words["after"]) == ("[<s>", "]")
    words = found(tmp_path, {"chat_template.jinja": "Q: {{ messages[0].content }} A:"})
    assert words is not None
    assert (words["before"], words["after"]) == ("Q: ", " A:")


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content }}{{ messages[0].content }}",
        "no prompt",
        "{{ raise_exception('no system') }}",
        "{{ messages[0].content.__class__.__mro__ }}",
        "{% for",
    ],
)
def test_templates_that_can_not_be_two_texts_are_refused(tmp_path: Path, template: str) -> None:
    with pytest.raises(ValueError, match="its chat template"):
        found(tmp_path, FILES | {"tokenizer_config.json": {"chat_template": template}})


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "takes more than 0.5 s"),
        ("{% for i in range(99999) %}long{% endfor %}", "makes more than 65,536 characters"),
        ("{{ messages * 9999999999 }}", "can't be used"),
    ],
)
def test_a_template_has_limits_of_time_output_and_memory(template: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        render(template, {"messages": "x"}, 0.5 if "0.5 s" in problem else 10.0)


def test_a_system_that_limits_no_memory_renders_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")  # as on macOS

    monkeypatch.setattr("resource.setrlimit", refuse)
    chat_template._limit_memory()


def test_a_template_whose_text_is_no_unicode_is_refused(tmp_path: Path) -> None:
    template = r"{{ '\ud800' }}{{ messages[0].content }}"
    with pytest.raises(ValueError, match="its chat template"):
        found(tmp_path, FILES | {"tokenizer_config.json": {"chat_template": template}})


def test_other_models_have_no_such_description(tmp_path: Path) -> None:
    assert found(tmp_path, FILES, pixel_values="x") is None
    (tmp_path / "tokenizer.json").unlink()
    assert found(tmp_path, {}) is None
