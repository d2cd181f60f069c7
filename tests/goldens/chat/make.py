#!/usr/bin/env python3
"""Writes vectors.jsonl beside it: what transformers' own environment for chat templates makes of expressions.txt (one a
line, printed), statements.jsonl (templates) and templates/*.jinja over conversations.

    pip install transformers jinja2 && python3 tests/goldens/chat/make.py      (transformers 5.24.0, jinja2 3.1.6)

The first line holds the variables of expressions and statements. A row without "text" is one that transformers refuses.
"""
import json
import pathlib

from transformers.utils.chat_template_utils import _compile_jinja_template

here = pathlib.Path(__file__).parent
messages = [
    {"role": "user", "content": "Hi there"},
    {"role": "assistant", "content": "  yes\n", "tool_calls": [
        {"function": {"name": "f", "arguments": {"x": 1, "y": [1, 2, {"z": None}]}}}]},
    {"role": "user", "content": "né ß İ 中文 \U0001f600"},
]
variables = {"messages": messages, "bos_token": "<s>", "eos_token": "</s>", "n": 5, "f": 2.5, "s": "a,b,,c",
             "d": {"b": 1, "a": 2, "C": 3}, "l": [3, 1, 2], "e": [], "big": 123456789012345678901234567890, "t": True,
             "none_": None, "tools": None, "mixed": [1, "a", None, True, 2.0]}

weather = {"city": {"type": "string", "description": "a \"name\" <b> é"}, "unit": {"type": "string", "enum": ["C", "F"]},
           "days": {"type": ["integer", "null"], "default": 1}, "parts": {"type": "array", "items": {"type": "number"}},
           "at": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "array"}}}}
tools = [{"type": "function", "function": {
    "name": "weather", "description": "Weather & wind", "parameters": {
        "type": "object", "properties": weather, "required": ["city"]}}}]
call = {"type": "function", "id": "abcdefghi", "function": {"name": "weather", "arguments": {"city": "Köln \"x\"", "days": 2.0}}}


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


user, assistant = (lambda text, role=role, **more: turn(role, text, **more) for role in ("user", "assistant"))
conversations = [
    [user("Hi")],
    [turn("system", "Be brief."), user(" What is 1+1?\n")],
    [turn("system", "s"), user("a"), assistant(" b \n"), user("c"), assistant("d"), user("e")],
    [user("a"), assistant("<think>\nlong thought\n</think>\n\nanswer"), user("c")],
    [user("a"), assistant("x", reasoning_content="why")],
    [user("w"), assistant("", tool_calls=[call]), turn("tool", "20 C", tool_call_id="abcdefghi"), user("thanks")],
    [user("w"), assistant("see", tool_calls=[call, call]), turn("tool", "20"), turn("tool", "21")],
    [turn("system", [{"type": "text", "text": "sys"}]), user([{"type": "image"}, {"type": "text", "text": "what"}])],
    [user("a"), user("b")], [turn("robot", "x")], [assistant("first"), user("b")],
    [user("中文 😀 <|im_end|> {{ x }}"), assistant("</think>")],
]


def row(source, given, **about):
    try:
        about["text"] = _compile_jinja_template(source).render(**given)
    except Exception:  # whatever is raised: the template refuses
        pass
    return about


rows = [{"variables": variables}]
for line in (here / "expressions.txt").read_text().splitlines():
    rows.append(row("{{ " + line + " }}", variables, template="{{ " + line + " }}"))
for line in (here / "statements.jsonl").read_text().splitlines():
    rows.append(row(json.loads(line), variables, template=json.loads(line)))
for path in sorted((here / "templates").glob("*.jinja")):
    for conversation in conversations:
        for given in (None, tools):
            for prompt in (True, False):
                rows.append(row(path.read_text(), {
                    "messages": conversation, "tools": given, "documents": None, "add_generation_prompt": prompt,
                    "bos_token": "<s>", "eos_token": "</s>"}, file=path.name, messages=conversation, tools=given,
                    prompt=prompt))
(here / "vectors.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
