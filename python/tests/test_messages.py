"""Messages in Python's own words: what the checker says of programs is told as it is written here."""

import inspect
import math
import pathlib
import re

import numpy as np
import pellucid as pl
import pytest
from conftest import PROMPT
from pellucid._errors import IN_PYTHON, RunError, in_python

CRATES = pathlib.Path(__file__).resolve().parents[2] / "crates"


def told(kind, write):
    with pytest.raises(kind) as caught:
        write()
    return str(caught.value)


def line():
    return inspect.currentframe().f_back.f_lineno


@pytest.mark.skipif(not CRATES.exists(), reason="the sources are not there")
def test_every_hint_that_is_put_into_python_s_words_is_one_of_the_checker_s():
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (CRATES / "graph/src").rglob("*.rs"))
    for theirs in IN_PYTHON:
        assert theirs in sources, theirs


def test_a_gradient_is_backward_s_gradient(model):
    def write(*gradient):
        with model.trace(PROMPT):
            logits = model.logits[0]
            with logits.backward(*gradient):
                model.layers[0].output.grad.save()

    assert "or give `backward` a `gradient` of its shape" in told(pl.ProgramError, write)
    message = told(pl.ProgramError, lambda: write(pl.ones(3)))
    assert "the `gradient` that `backward` is given is f32[3]" in message and "cotangent" not in message


def test_what_is_made_in_a_body_is_kept_by_python_s_verbs(model):
    def swept():
        with model.trace(PROMPT) as tracer:
            with tracer.sweep(k=range(2)) as cell:
                x = model.layers[0].output * cell.k
            (x + 1).save()

    def chosen():
        with model.trace(PROMPT) as tracer:
            with tracer.cond(model.layers[0].output.sum() > 0):
                x = model.layers[0].output * 2
            (x + 1).save()

    def looped():
        with model.session() as session:
            with session.loop(3, carry={"x": 1.0}) as loop:
                y = loop.x * 2
                loop.next(x=y)
            (y + 1).save()

    for write, verbs in ((swept, ("x.save()", "cell.collect(x)", "cell.mean(x)")), (chosen, ("branch.choose(a, b)", "x.save()")), (looped, ("loop.next(x=…)", "loop.x"))):
        message = told(pl.ProgramError, write)
        assert all(f"`{verb}`" in message for verb in verbs) and "yield" not in message


def test_writing_a_part_is_an_assignment(model):
    def whole():
        with model.trace(PROMPT):
            model.layers[0].output = pl.ones(3, 7)
            model.logits.save()

    def part():
        with model.trace(PROMPT):
            model.layers[0].output[:, -1] = pl.ones(7)
            model.logits.save()

    def weight():
        with model.trace(PROMPT):
            model.transformer.h[1].mlp.c_proj.weight = pl.ones(7)
            model.logits.save()

    assert "`….output[:, -1] = value`" in told(pl.ProgramError, whole)
    assert told(pl.ProgramError, part).startswith("`x[…] = value` writes f32[7] where the places are [1, 128]")
    assert "`….weight[:10] = value`" in told(pl.ProgramError, weight)


def test_programs_of_others_keep_their_words(model):
    body = [{"op": "trace", "invokes": [{"prompt": "a"}], "body": [{"op": "get", "name": "l", "hook": "logits"}, {"op": "backward", "name": "b", "of": "l"}]}]
    message = told(pl.ProgramError, lambda: pl.Program.parse({"pellucid": 1, "body": body}).run(model))
    assert "give a `cotangent` of its shape" in message


def test_a_prompt_s_tokens_are_numbers_from_0(model):
    def write():
        with model.trace([[1, -2]]):
            model.logits.save()

    assert "token ids, which count from 0" in told(pl.ProgramError, write) and "{" not in told(pl.ProgramError, write)


def test_a_mistake_in_an_edit_is_in_no_cell(model):
    with model.edit() as edited:
        edited.layers[1].output = edited.layers[3].output
        edited.layers[1].output[:, 99] = 0

    def write():
        with edited.trace() as tracer:
            with tracer.invoke("a"):
                pass
            with tracer.invoke(PROMPT):
                edited.logits.save()

    message = told(pl.ProgramError, write)
    assert "2 things are wrong" in message and "(in cell" not in message
    assert in_python("x (in cell 1, 4)", "edit_1_add_0") == "x (in cell 4)" and in_python("x (in cell 1, 4)", "add_0") == "x (in cell 1, 4)"


def test_numpy_s_numbers_are_options(model):
    with model.generate(PROMPT, max_new_tokens=np.int64(1), temperature=np.float32(0.5), top_k=np.int64(3), top_p=np.float32(0.5)) as tracer:
        made = tracer.generated.save()
    assert made.shape == (1, 1)


@pytest.mark.parametrize("options, why", [
    ({"temperature": math.nan}, "`temperature` is nan"), ({"temperature": math.inf}, "`temperature` is inf"), ({"temperature": "x"}, "`temperature` is 'x', not a number"),
    ({"top_k": -1}, "`top_k` is -1"), ({"top_k": 1.5}, "`top_k` is 1.5, not a whole number"), ({"top_p": math.nan}, "`top_p` is nan"),
    ({"repetition_penalty": math.nan}, "`repetition_penalty` is nan"), ({"stop_tokens": " Paris"}, "`stop_tokens` is ' Paris'"), ({"stop_tokens": ["a"]}, "`stop_tokens` is ['a']"),
    ({"stop_texts": [3]}, "`stop_texts` has 3"), ({"stop_texts": "\ud800"}, "`stop_texts` is no text"), ({"max_new_tokens": 10**30}, "`max_new_tokens` is"),
])
def test_options_of_a_generation_are_checked_where_they_are_given(model, options, why):
    with pytest.raises((ValueError, TypeError), match=re.escape(why) + r"[^\n]*\n  hint: "):
        model.generate(PROMPT, **options)


def test_half_a_surrogate_pair_is_no_text(model):
    def swept():
        with model.session() as session:
            with session.sweep(text=["good", "bad \ud800"]):
                pass

    def invoked():
        with model.trace() as tracer:
            with tracer.invoke(["good", "bad \ud800"]):
                pass

    for write in (lambda: model.trace("bad \ud800").__enter__(), swept, invoked, lambda: model.tokenizer.encode("bad \ud800"), lambda: model.token("bad \ud800")):
        assert r"'bad \ud800' has half a surrogate pair, '\ud800', at place 4" in told(ValueError, write)


def test_numbers_that_64_bits_cannot_hold(model):
    def written():
        with model.trace(PROMPT):
            model.layers[0].output[:, -1] = 10**30

    def added():
        with model.trace(PROMPT) as tracer:
            tracer.tokens + 2**63

    for write, number in ((written, "1" + 30 * "0"), (added, str(2**63)), (lambda: pl.ones(2) + 10**20, "1" + 20 * "0")):
        assert told(OverflowError, write).startswith(f"the number {number} is too large") and "as a float" in told(OverflowError, write)
    assert "of 1329 bits is too large" in told(OverflowError, lambda: pl.ones(2) * 10**400)
    for write in (lambda: pl.ones(2)[10**20], lambda: pl.zeros(10**20), lambda: pl.ones(2).sum(10**20), lambda: pl.ones(2).reshape(1, 10**20)):
        assert told(OverflowError, write).startswith(f"the number {10**20} is too large")

    def tokens():
        with model.trace([[1, 10**30]]):
            pass

    assert "a token id of 100 bits is none: the model's vocabulary has 2048" in told(ValueError, tokens)
    assert (pl.tensor([1]) + (2**63 - 2)).item() == 2**63 - 1 and (pl.tensor([0]) + -(2**63)).item() == -(2**63)


def test_a_range_is_an_index(model):
    numbers = np.arange(24.0).reshape(2, 3, 4)
    x = pl.tensor(numbers)
    for index in ((slice(None), range(2)), range(1, -1, -1), (0, range(0, 3, 2), range(2)), (..., range(0))):
        listed = tuple(list(each) if isinstance(each, range) else each for each in (index if isinstance(index, tuple) else (index,)))
        listed = tuple(np.array(each, np.int64) if isinstance(each, list) else each for each in listed)
        assert np.array_equal(x[index], numbers[listed])
    with model.trace(PROMPT):
        h = model.layers[0].output
        before = h[:, range(1, 3)].save()
        whole = h.clone().save()
        h[:, range(2)] = 0
        after = h.save()
    assert np.array_equal(before, whole[:, 1:3]) and not after[:, :2].any() and np.array_equal(after[:, 2:], whole[:, 2:])


def test_a_loop_over_rows_says_how_to_take_a_value_apart(model):
    def loops(take):
        with model.trace(PROMPT):
            take(model.layers[0].output)

    def unpacked(h):
        a, b = h[:, :2]

    for take in (list, unpacked):
        message = told(pl.ControlFlowError, lambda: loops(take))
        assert "`for row in x.unbind(0):`" in message and "`x.chunk(2, 0)`" in message
    with model.trace(PROMPT):
        rows = [row.sum() for row in model.layers[0].output.flatten(0, 1).unbind(0)]
        a, b = model.layers[0].output[0, :2].unbind(0)
        saved = pl.save([*rows, a - b])
    assert len(saved) == 11


def test_a_run_out_of_memory_says_what_to_do(model):
    def write():
        with model.trace(PROMPT, memory_bytes=1000):
            model.logits.save()

    at = inspect.getsourcelines(write)[1] + 1
    message = told(pl.RunError, write)
    assert f"test_messages.py:{at}\n    | with model.trace(PROMPT, memory_bytes=1000):\n  hint: run fewer prompts or cells at once" in message
    assert "`memory_bytes`" in message and "\n  in trace_0" in message


def test_what_the_traces_before_a_failure_saved_is_there(model):
    with pytest.raises(pl.RunError) as caught:
        with model.session():
            with model.generate(PROMPT, max_new_tokens=2) as tracer:
                with tracer.all():
                    steps = model.logits[:, -1].argmax(-1).save()
                cache = tracer.cache(modules=[model.layers[1]])
                h = model.layers[1].output.save()
                lost = model.layers[2].output * 1
            with model.trace(PROMPT):
                later = (model.layers[0].output[0, :4, :4] * 0).inv().save()
    assert np.array_equal(h, caught.value.kept["h"]) and h.shape == (1, 10, 128)
    assert len(steps) == 2 and steps[1].shape == (1,) and cache["layers.1"].output[0].shape == (1, 10, 128)
    for value in (later, lost):
        message = told(pl.NotComputedError, value.numpy)
        assert "the run that it was part of failed" in message and "`.kept`" in message


def test_an_error_of_a_run_keeps_its_words_when_it_is_told_where(model):
    error = RunError({"message": "what\n  in trace `t`", "trace": "t", "kind": "internal"})
    assert str(error) == "what\n  in t"
    error.at({"file": __file__, "line": line()})
    assert str(error).startswith("what\n  --> ") and str(error).endswith('| error.at({"file": __file__, "line": line()})\n  in t')


def test_decode_leaves_out_what_is_below_0(model):
    tokenizer = model.tokenizer
    assert tokenizer.decode(-1) == "" and tokenizer.decode([65, -1, -1]) == tokenizer.decode(65) == tokenizer.decode(np.int64(65)) == "a"
    with model.generate(PROMPT, max_new_tokens=4) as tracer:
        with tracer.iter[1:2]:
            tracer.stop(when=pl.tensor([True]))
        made = tracer.generated.save()
    assert made[0, -1].item() == -1
    assert "".join(tokenizer.decode(each) for each in made[0]) == tokenizer.decode(made[0])
    assert "is a text" in told(TypeError, lambda: tokenizer.decode("a")) and "too large" in told(ValueError, lambda: tokenizer.decode(10**30))


def test_a_tokenizer_tells_of_itself(model):
    tokenizer = model.tokenizer
    assert repr(tokenizer) == f"Tokenizer(vocab_size=2048, eos_token_id={tokenizer.eos_token_id})"
    assert tokenizer.encode(["a", "b c"]) == [tokenizer.encode("a"), tokenizer.encode("b c")]
    assert tokenizer.eos_token == tokenizer.pad_token == tokenizer.decode(tokenizer.eos_token_id) and isinstance(tokenizer.bos_token, str | None)
    assert "`[tokenizer.decode(token) for token in ids]`" in told(AttributeError, lambda: tokenizer.convert_ids_to_tokens)
    assert "did you mean `encode`?" in told(AttributeError, lambda: tokenizer.encod)
    assert "decode" in told(TypeError, lambda: tokenizer.encode(3))
    assert not hasattr(tokenizer, "chat_template")


def test_a_cache_says_what_there_is_instead(model):
    _, cache = model.run_with_cache(PROMPT)
    assert 'cache["embed"].output.shape`' in told(AttributeError, lambda: cache["embed"].shape)
    assert "devices are the engine's affair" in told(AttributeError, lambda: cache.to)
    for name in ("stack_head_results", "logit_attrs", "apply_ln_to_stack", "logit_lens", "remove_batch_dim"):
        message = told(AttributeError, lambda: getattr(cache, name))
        assert message.startswith(f"a cache has no `{name}`\n  hint: ")
    for path, hint in (("embed.outptu", "did you mean `embed.output`?"), ("layers.1.attention.patern", "did you mean `layers.1.attention.pattern`?"),
                       ("layers.1.attention.zzz", "of `layers.1.attention` it has `input`"), ("shape", "`cache[name].shape`"), ("zzz", "it has `input`")):
        with pytest.raises(KeyError) as caught:
            cache[path]
        assert caught.value.args[0].startswith(f"`{path}` is not in the cache\n  hint: ") and hint in caught.value.args[0]
    _, few = model.run_with_cache(PROMPT, names_filter="layers.*.output")
    for path in ("embed", "hook_embed", "layers.1.attention.pattern"):
        with pytest.raises(KeyError, match="was not asked for"):
            few[path]
    assert np.array_equal(cache["layers.1"].attention.pattern, cache["pattern", 1])


def test_results_show_themselves_in_notebooks(model):
    with model.trace(PROMPT) as tracer:
        logits = model.logits.save()
        best = model.logits.amax().save()
        held = (model.logits > 0).any().save()
    html = tracer.results._repr_html_()
    assert "<th>logits</th><td>f32</td><td>[1, 10, 2048]</td><td></td>" in html
    assert f"<th>best</th><td>f32</td><td>[]</td><td>{best.item():.6g}</td>" in html and f"<td>{held.item()}</td>" in html
    assert logits.shape == (1, 10, 2048)
