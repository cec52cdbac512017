"""Makes golden/chats.json: chat templates that use what published ones use, and what transformers makes of them.

    python make_chats.py

The templates are this project's own, written so that each construct of the well-known families' templates is there.
"""

import json
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

OUTPUT = Path(__file__).parent / "chats.json"

TEMPLATES = {
    # Headers around each turn, tools as indented JSON, trimmed contents: in the manner of Llama 3.
    "headers": r"""{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The first message may be the system's. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
<|header|>system<|end|>
{{ system_message }}
{%- if tools is not none %}
{{- "\nTools:\n" }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
        {{- "\n" }}
    {%- endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|header|>' + message['role'] + '<|end|>\n\n' + message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One call at a time!") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|header|>assistant<|end|>\n\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}
        {{- "}<|eot|>" }}
    {%- else %}
        {{- "<|header|>ipython<|end|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|header|>assistant<|end|>\n\n' }}
{%- endif %}
""",
    # Thinking taken out of earlier turns, a namespace, a walk backwards: in the manner of Qwen 3.
    "thinking": r"""{%- set ns = namespace(multi_step=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning)) %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}""",
    # Turns that must alternate: in the manner of Gemma and Mistral.
    "turns": r"""{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}""",
    # Blocks on lines of their own, loop controls, macros, filters, Python's methods.
    "everything": r"""{% macro show(name, value, mark='*') %}
  {{ mark }} {{ name | upper }}: {{ value }}
{% endmacro %}
{% for message in messages %}
    {% if message.role == 'skip' %}
        {% continue %}
    {% endif %}
    {% if message.role == 'stop' %}
        {% break %}
    {% endif %}
    {% generation %}
{{ show(message.role, message.content.replace('a', 'A').upper()) }}
    {% endgeneration %}
    {%- for key, value in message.items() if key not in ['role', 'content'] %}
        {{ loop.index }}/{{ loop.length }} {{ key }}={{ value | tojson }} {{ value | tojson(ensure_ascii=True, sort_keys=True) }} {{ value | tojson(separators=(',', ':')) }}
    {% else %}
        nothing more{# a comment #}
    {% endfor %}
{% endfor %}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(' + ') }}
{{ messages | rejectattr('role', 'equalto', 'user') | list | length }} {{ (messages | last).role }} {{ unknown_thing }}|{{ messages[-1]['content'][:3] }}|{{ 7 // 2 }} {{ 7 % 4 }} {{ 1.5 + 1 }} {{ 'x' ~ 3 }} {{ not true }}
{{ "yes" if add_generation_prompt else "no" }} {{ "  a b ".strip().split(' ') | join(',') }} {{ 'abc' is string }} {{ {'a': 1}.get('b', 'none') }}
{{ eos_token }}
""",
}  # fmt: skip

PLAIN = [
    {"role": "user", "content": " Hello <world> & 'you' \n"},
    {"role": "assistant", "content": "<think>\nhm, a thought\n</think>\n\nHi — naïve."},
    {"role": "user", "content": "And now?"},
]
WITH_SYSTEM = [{"role": "system", "content": " Be brief. "}, *PLAIN]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather <today> in a \"city\".",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "none": {}, "list": []}},
    },
}
WITH_TOOLS = [
    *WITH_SYSTEM,
    {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Zürich", "n": 1.5, "on": True}}}]},
    {"role": "tool", "content": {"rain": None, "list": [1, 2]}},
]
ODD = [
    {"role": "user", "content": "banana split", "b": {"z": 1, "a": "é\u2603😀"}, "c": [1, "two", None]},
    {"role": "skip", "content": "never"},
    {"role": "assistant", "content": "an answer"},
    {"role": "stop", "content": "end"},
    {"role": "user", "content": "unseen"},
]
CONVERSATIONS = {"plain": (PLAIN, {}), "with_system": (WITH_SYSTEM, {}), "with_tools": (WITH_TOOLS, {"tools": [TOOL]}),
                 "not_thinking": (PLAIN, {"enable_thinking": False}), "odd": (ODD, {})}  # fmt: skip
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def main():
    cases = []
    for template_name, template in TEMPLATES.items():
        for name, (messages, variables) in CONVERSATIONS.items():
            for prompt in (False, True):
                case = {"template": template_name, "conversation": name, "add_generation_prompt": prompt}
                variables_and_special = SPECIAL | {k: v for k, v in variables.items() if k != "tools"}
                try:
                    rendered, _ = render_jinja_template(
                        [messages], tools=variables.get("tools"), chat_template=template,
                        add_generation_prompt=prompt, **variables_and_special,
                    )  # fmt: skip
                    case["text"] = rendered[0]
                except Exception as error:
                    case["error"] = str(error)
                cases.append(case)
    conversations = {name: {"messages": m, "variables": v} for name, (m, v) in CONVERSATIONS.items()}
    golden = {"special": SPECIAL, "templates": TEMPLATES, "conversations": conversations, "cases": cases}
    OUTPUT.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
    print(f"{len(cases)} cases, {sum('error' in case for case in cases)} of them errors")


if __name__ == "__main__":
    main()
