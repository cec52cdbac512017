//! The checker's bounds, each at its edge: the last that is taken, and the first that is refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

mod support;

use pellucid_graph::Program;
use pellucid_graph::check::{SpecIndex, check};

const LOGITS: &str = r#"{"op":"get","name":"l","hook":"logits"},{"op":"save","name":"logits","value":"l"}"#;

/// What the checker says of a trace on the bundled model; nothing: it takes it.
fn said(tokens: &[u64], generate: &str, nodes: &str) -> Option<String> {
    let spec = support::tiny_gpt2();
    let text = format!(
        r#"{{"pellucid":1,"body":[{{"op":"trace","invokes":[{{"name":"p","tokens":[{tokens:?}]}}]{generate},"body":[{nodes}]}}]}}"#
    );
    let program = Program::from_json(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    check(program, &SpecIndex::new(&spec)).err().map(|faults| faults.to_string())
}

fn taken(tokens: &[u64], generate: &str, nodes: &str) {
    assert_eq!(said(tokens, generate, nodes), None);
}

fn refused(tokens: &[u64], generate: &str, nodes: &str, because: &str) {
    let message = said(tokens, generate, nodes).unwrap_or_else(|| panic!("it is taken: {because}"));
    assert!(message.contains(because), "`{because}` is not in\n{message}");
}

#[test]
fn tokens_end_with_the_vocabulary() {
    let vocabulary = support::tiny_gpt2().sizes.vocabulary;
    taken(&[0, vocabulary - 1], "", LOGITS);
    refused(&[0, vocabulary], "", LOGITS, &format!("has token {vocabulary}"));
}

#[test]
fn positions_end_where_the_model_has_no_more() {
    let positions = support::tiny_gpt2().sizes.positions.unwrap();
    let prompt = |length: u64| vec![1; length as usize];
    taken(&prompt(positions), "", LOGITS);
    refused(&prompt(positions + 1), "", LOGITS, &format!("takes {} positions", positions + 1));
    // The last token that is made is never read: it takes no position.
    taken(&prompt(positions - 2), r#","generate":{"max_new_tokens":3}"#, LOGITS);
    refused(&prompt(positions - 1), r#","generate":{"max_new_tokens":3}"#, LOGITS, "positions");
}

#[test]
fn steps_end_with_the_last_new_token() {
    let at = |step: u64| {
        format!(
            r#"{{"op":"get","name":"h","hook":"layers.0.output","step":{step}}},{{"op":"save","name":"s","value":"h"}}"#
        )
    };
    let generate = r#","generate":{"max_new_tokens":3}"#;
    taken(&[1], generate, &at(2));
    refused(&[1], generate, &at(3), "step 3 is never reached");
    let body = |range: &str| {
        format!(
            r#"{{"op":"steps","name":"all",{range},"body":[{{"op":"get","name":"h","hook":"layers.0.output"}},{{"op":"save","name":"s","value":"h"}}]}}"#
        )
    };
    taken(&[1], generate, &body(r#""from":2"#));
    refused(&[1], generate, &body(r#""from":3"#), "never reached");
    taken(&[1], generate, &body(r#""from":0,"to":3"#));
    refused(&[1], generate, &body(r#""from":0,"to":4"#), "never reached");
}

#[test]
fn an_edit_may_come_from_its_own_place_and_not_from_a_later_one() {
    let edit = |from: &str, to: &str| {
        format!(
            r#"{{"op":"get","name":"h","hook":"{from}"}},{{"op":"mul","name":"m","input":"h","other":2.0}},{{"op":"set","hook":"{to}","value":"m"}},{LOGITS}"#
        )
    };
    taken(&[1, 2], "", &edit("layers.1.output", "layers.1.output"));
    taken(&[1, 2], "", &edit("layers.0.output", "layers.1.output"));
    refused(&[1, 2], "", &edit("layers.1.output", "layers.0.output"), "computed later");
    refused(&[1, 2], "", &edit("layers.1.output", "layers.1.input"), "computed later");
}

#[test]
fn an_edit_that_nothing_saved_comes_after_is_refused() {
    let nodes = |read: &str| {
        format!(
            r#"{{"op":"zeros","name":"z","size":[1]}},{{"op":"set","name":"edit","hook":"layers.1.output","value":"z"}},
            {{"op":"get","name":"h","hook":"{read}"}},{{"op":"save","name":"s","value":"h"}}"#
        )
    };
    taken(&[1], "", &nodes("layers.1.output"));
    taken(&[1], "", &nodes("layers.2.input"));
    refused(&[1], "", &nodes("layers.1.input"), "changes nothing");
}

#[test]
fn the_elements_of_a_literal_are_numbers_of_its_type() {
    let literal = |dtype: &str, elements: &str| {
        let count = elements.split(", ").count();
        format!(
            r#"{{"op":"literal","name":"x","dtype":"{dtype}","shape":[{count}],"elements":[{elements}]}},{{"op":"save","name":"s","value":"x"}}"#
        )
    };
    for (dtype, elements) in [
        ("u8", "0, 255"),
        ("i32", "-2147483648, 2147483647"),
        ("i64", r#"-5, 3.0, {"int": "9223372036854775807"}"#),
        ("f32", r#"0.1, 16777217, {"float": "nan"}, {"float": "-inf"}"#),
        ("f16", "65504"),
        ("bool", "0, 2.5, true"),
    ] {
        taken(&[1], "", &literal(dtype, elements));
    }
    for (dtype, elements, at) in [
        ("u8", "0, 256", "element 1 of the literal, 256,"),
        ("u8", "-1", "element 0 of the literal, -1,"),
        ("u8", "1, 2, 0.5", "element 2 of the literal, 0.5,"),
        ("i32", "99999999999", "is not a number of i32"),
        ("i32", "1.5", "element 0 of the literal, 1.5,"),
        ("i64", "1.0e300", "element 0 of the literal"),
        ("i64", r#"{"float": "nan"}"#, "element 0 of the literal, NaN,"),
        ("i64", r#"{"float": "inf"}"#, "element 0 of the literal, inf,"),
        ("f16", "65520.0", "is not a number of f16"),
        ("f32", "1.0e300", "is not a number of f32"),
    ] {
        refused(&[1], "", &literal(dtype, elements), at);
    }
}

#[test]
fn what_an_operation_refuses_comes_with_how_it_is_written() {
    let sum = r#"{"op":"get","name":"h","hook":"layers.0.output"},{"op":"sum","name":"t","input":"h","dim":99},{"op":"save","name":"s","value":"t"}"#;
    refused(&[1], "", sum, "has no dimension 99");
    refused(&[1], "", sum, "hint: `sum(input: tensor, dim: integers?");
}

/// The price of a program with that body.
fn price(nodes: &str) -> pellucid_graph::check::Price {
    let mut spec = support::tiny_gpt2();
    spec.capabilities.push("weights".into());
    let text = format!(r#"{{"pellucid":1,"body":[{nodes}]}}"#);
    let program = Program::from_json(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    check(program, &SpecIndex::new(&spec)).unwrap_or_else(|faults| panic!("{faults}\n{text}")).price
}

#[test]
fn what_is_read_out_of_its_order_costs_more() {
    let sum = |between: &str, of: &str| {
        price(&format!(
            r#"{{"op":"zeros","name":"x","size":[512,1024]}},{between}{{"op":"sum","name":"s","input":"{of}"}},{{"op":"save","name":"all","value":"s"}}"#
        ))
        .flops
    };
    let turned = sum(r#"{"op":"transpose","name":"t","input":"x","dim0":0,"dim1":1},"#, "t");
    assert!(turned > sum("", "x") + 10 * 512 * 1024, "{turned}");
    let seen = sum(
        r#"{"op":"transpose","name":"t","input":"x","dim0":0,"dim1":1},{"op":"unsqueeze","name":"u","input":"t","dim":0},"#,
        "u",
    );
    assert_eq!(seen, turned, "a view of it is in no better order");
}

#[test]
fn what_is_saved_is_priced_by_its_bytes() {
    let saved = |dtype: &str| {
        let nodes = r#"{"op":"zeros","name":"x","size":[1024,1024],"dtype":"DTYPE"},{"op":"save","name":"all","value":"x"}"#;
        price(&nodes.replace("DTYPE", dtype))
    };
    let (wide, narrow) = (saved("f64"), saved("u8"));
    assert!(narrow.flops >= 8 << 20 && wide.flops > 5 * narrow.flops, "{wide:?} {narrow:?}");
}

#[test]
fn the_name_of_what_is_saved_is_part_of_the_result() {
    let saved = |name: &str, steps: u64| {
        price(&format!(
            r#"{{"op":"trace","invokes":[{{"tokens":[[1,2,3]]}}],"generate":{{"max_new_tokens":{steps},"stop_tokens":[]}},"body":[{{"op":"steps","body":[
                {{"op":"get","name":"h","hook":"layers.0.output"}},{{"op":"sum","name":"t","input":"h"}},{{"op":"save","name":"{name}","value":"t"}}]}}]}}"#
        ))
        .result_bytes
    };
    let (short, long) = ("s", "s".repeat(200));
    assert_eq!(saved(&long, 10) - saved(short, 10), 199 * 10);
    assert!(saved(short, 10) > 10 * 64, "{}", saved(short, 10));
}

/// The price of the sum of so many rows of a matrix; and of its gradient.
fn rows(many: usize, back: bool) -> pellucid_graph::check::Price {
    let mut nodes = vec![r#"{"op":"randn","name":"x","size":[100,10000]}"#.to_owned()];
    for row in 0..many {
        nodes.push(format!(
            r#"{{"op":"getitem","name":"r{row}","input":"x","index":[{row}]}},{{"op":"sum","name":"t{row}","input":"r{row}"}}"#
        ));
        nodes.push(match row {
            0 => r#"{"op":"add","name":"loss0","input":"t0","other":0}"#.to_owned(),
            _ => format!(r#"{{"op":"add","name":"loss{row}","input":"loss{}","other":"t{row}"}}"#, row - 1),
        });
    }
    let last = many - 1;
    nodes.push(match back {
        true => format!(
            r#"{{"op":"backward","name":"b","of":"loss{last}"}},{{"op":"grad","name":"g","backward":"b","of":"x"}},{{"op":"save","name":"s","value":"g"}}"#
        ),
        false => format!(r#"{{"op":"save","name":"s","value":"loss{last}"}},{{"op":"save","name":"all","value":"x"}}"#),
    });
    price(&format!(r#"{{"op":"trace","invokes":[{{"tokens":[[1,2,3]]}}],"body":[{}]}}"#, nodes.join(",")))
}

#[test]
fn what_is_held_and_done_on_a_way_back_is_priced() {
    let there = rows(20, false);
    let back = rows(20, true);
    // Each row brings a gradient as large as all of the matrix.
    assert!(back.peak_bytes > there.peak_bytes + 19 * 4_000_000, "{back:?} {there:?}");
    assert!(back.flops > there.flops + 20 * 1_000_000, "{back:?} {there:?}");
}

#[test]
fn what_is_written_to_a_hook_point_is_priced() {
    let written = |set: &str| {
        price(&format!(
            r#"{{"op":"trace","invokes":[{{"tokens":[[1,2,3]]}}],"body":[{{"op":"ones","name":"h","size":[3,128]}},{{"op":"sum","name":"t","input":"h"}},{{"op":"save","name":"u","value":"t"}},{set}
                {{"op":"get","name":"l","hook":"logits"}},{{"op":"save","name":"s","value":"l"}}]}}"#
        ))
        .own_flops
    };
    let set = r#"{"op":"set","hook":"layers.0.output","value":"h"},"#;
    assert!(written(set) > written(""), "{} {}", written(set), written(""));
}

#[test]
fn what_an_operation_needs_while_it_runs_is_priced() {
    const COUNT: u64 = 1 << 20;
    let drawn = price(&format!(
        r#"{{"op":"randperm","name":"p","n":{COUNT}}},{{"op":"sum","name":"s","input":"p"}},{{"op":"save","name":"all","value":"s"}}"#
    ));
    // The result, and pairs of a key and a place.
    assert!(drawn.peak_bytes >= (8 + 16) * COUNT, "{drawn:?}");
    let ones = price(&format!(
        r#"{{"op":"ones","name":"p","size":[{COUNT}]}},{{"op":"sum","name":"s","input":"p"}},{{"op":"save","name":"all","value":"s"}}"#
    ));
    assert!(ones.peak_bytes < 6 * COUNT, "{ones:?}");
}

/// The price of so many ways back through an invoke of prompts of those lengths, one of whose weights is set.
fn ways_back(ways: usize, lengths: &[usize]) -> pellucid_graph::check::Price {
    let prompts: Vec<Vec<u64>> = lengths.iter().map(|&length| vec![1; length]).collect();
    let mut nodes = vec![
        r#"{"op":"weight","name":"w","parameter":"layers.0.mlp.c_fc.weight"},{"op":"set_weight","parameter":"layers.0.mlp.c_fc.weight","value":"w"}"#.to_owned(),
        r#"{"op":"get","name":"early","hook":"layers.1.output"},{"op":"get","name":"h","hook":"layers.2.output"},{"op":"sum","name":"loss","input":"h"}"#.to_owned(),
    ];
    for way in 0..ways {
        let of = if way == 0 { "w" } else { "early" };
        nodes.push(format!(
            r#"{{"op":"backward","name":"b{way}","of":"loss"}},{{"op":"grad","name":"g{way}","backward":"b{way}","of":"{of}"}},{{"op":"sum","name":"t{way}","input":"g{way}"}},{{"op":"save","name":"s{way}","value":"t{way}"}}"#
        ));
    }
    price(&format!(r#"{{"op":"trace","invokes":[{{"tokens":{prompts:?}}}],"body":[{}]}}"#, nodes.join(",")))
}

#[test]
fn a_way_back_through_many_prompts_takes_what_they_take_one_by_one() {
    // As it was when each prompt was gone through by itself.
    let price = ways_back(3, &[1, 2, 5, 5, 3]);
    assert_eq!((price.flops, price.own_flops), (192_499_432, 1_773_288));
    assert_eq!((price.peak_bytes, price.kept_bytes), (3_104_590, 245_760));
    assert_eq!(price.recomputed_flops, 77_234_176);
}

#[test]
fn each_of_thousands_of_ways_back_takes_the_same() {
    let of = |ways: usize| ways_back(ways, &[1; 16_384]).recomputed_flops;
    let (one, two) = (of(1), of(2));
    assert_eq!(of(10_000), one + 9_999 * (two - one));
}

/// Bytes held by a generation of so many steps by two invokes, one of three tokens and one of two, with that body at each step, and those
/// nodes before it.
fn held(steps: u64, before: &str, body: &str) -> u64 {
    price(&format!(
        r#"{{"op":"trace","invokes":[{{"name":"a","tokens":[[1,2,3]]}},{{"name":"b","tokens":[[1,2]]}}],"generate":{{"max_new_tokens":{steps},"stop_tokens":[]}},
            "body":[{before}{{"op":"steps","body":[{body}]}}]}}"#
    ))
    .peak_bytes
}

/// How many bytes each further step adds.
fn by_step(before: &str, body: &str) -> u64 {
    (held(101, before, body) - held(1, before, body)) / 100
}

#[test]
fn what_waits_for_another_invoke_or_a_later_step_is_held_for_every_step() {
    let get = |name: &str, invoke: &str| {
        format!(r#"{{"op":"get","name":"{name}","invoke":"{invoke}","hook":"layers.0.output"}},"#)
    };
    let end = |of: &str| {
        format!(r#"{{"op":"sum","name":"t","input":"{of}"}},{{"op":"save","name":"s","value":"t"}}"#)
    };
    let ones = r#"{"op":"ones","name":"w","size":[100,128]},"#;
    // Three positions at the first step, one at each later.
    let (value, large) = (4 * 128, 4 * 100 * 128);
    let mul = |one: &str, two: &str| format!(r#"{{"op":"mul","name":"y","input":"{one}","other":"{two}"}},"#);
    let of_ones = r#"{"op":"sum","name":"v","input":"w"},"#;
    let alone = by_step("", &format!("{}{ones}{of_ones}{}", get("x", "a"), mul("x", "v") + &end("y")));
    let least = by_step("", &(get("x", "a") + &end("x")));
    assert_eq!(alone, least, "each step's is given up before the next");
    // Reduced before it waits, it is the little that is left which is held.
    let sums = r#"{"op":"sum","name":"p","input":"x"},{"op":"sum","name":"q","input":"z"},"#;
    let reduced =
        by_step("", &format!("{}{}{sums}{}", get("x", "a"), get("z", "b"), mul("p", "q") + &end("y")));
    assert!(reduced > alone && reduced < alone + value, "{reduced} {alone}");
    let both = by_step("", &format!("{}{}{sums}{}", get("x", "a"), get("z", "b"), mul("x", "q") + &end("y")));
    assert!(both >= alone + value, "{both} {alone}");
    // What is made in the body of nothing is there with the first of its invokes.
    let two = r#"{"op":"mul","name":"o","input":"w","other":"p"},"#;
    let made = by_step(
        "",
        &format!("{ones}{}{}{sums}{two}{}", get("x", "a"), get("z", "b"), mul("o", "q") + &end("y")),
    );
    assert!(made >= alone + 2 * large, "{made} {alone}");
    let later = r#"{"op":"get","name":"l","invoke":"a","hook":"layers.1.output","step":STEP},{"op":"sum","name":"m","input":"l"},"#;
    let waits = |step: u64| {
        let before = later.replace("STEP", &step.to_string());
        held(101, &before, &format!("{}{}", get("x", "a"), mul("x", "m") + &end("y")))
    };
    // What is read at the first step has two positions more.
    assert!(waits(100) >= waits(0) + 98 * value, "{} {}", waits(100), waits(0));
}

#[test]
fn what_is_logged_is_held_to_the_end() {
    let kept = |op: &str| {
        let body = r#"{"op":"ones","name":"w","size":[100,128]},{"op":"get","name":"x","invoke":"a","hook":"layers.0.output"},OP,{"op":"save","name":"s","value":"x"}"#;
        by_step("", &body.replace("OP", op))
    };
    let logged = kept(r#"{"op":"print","name":"all","value":"w"}"#);
    let none = kept(r#"{"op":"sum","name":"all","input":"w"}"#);
    assert!(logged >= none + 4 * 100 * 128, "{logged} {none}");
    assert_eq!(logged, kept(r#"{"op":"save","name":"all","value":"w"}"#));
}

/// What eight traces hold, one after another, each of which makes a value that is read at the end.
fn held_together(trace: impl Fn(usize) -> String) -> u64 {
    let traces: String = (0..8).map(trace).collect();
    let views: Vec<String> = (0..8).map(|at| format!(r#""v{at}""#)).collect();
    price(&format!(
        r#"{traces}{{"op":"cat","name":"all","tensors":[{}]}},{{"op":"sum","name":"t","input":"all"}},{{"op":"save","name":"s","value":"t"}}"#,
        views.join(",")
    ))
    .peak_bytes
}

#[test]
fn what_a_view_is_a_view_of_is_held_as_long_as_the_view() {
    let held = |between: &str| {
        let trace = |at: usize| {
            let between = between.replace("AT", &at.to_string());
            format!(
                r#"{{"op":"trace","generate":{{"max_new_tokens":2,"stop_tokens":[]}},"invokes":[{{"name":"a","tokens":[[1,2,3]]}}],"body":[
                {{"op":"get","name":"h{at}","hook":"layers.0.output"}},{{"op":"sum","name":"s{at}","input":"h{at}"}},
                {{"op":"repeat","name":"x{at}","input":"s{at}","repeats":[262144]}},{between}]}},"#
            )
        };
        held_together(trace)
    };
    let view = |stop: usize| format!(r#"{{"op":"getitem","name":"vAT","input":"xAT","index":[":{stop}"]}}"#);
    let (small, large) = (held(&view(16_384)), held(&view(16_385)));
    assert!(large >= small + 6 * (1 << 20), "{large} {small}");
    // However it is turned and cut again.
    let again = r#"{"op":"getitem","name":"pAT","input":"xAT","index":[":200000"]},{"op":"reshape","name":"rAT","input":"pAT","shape":[2,-1]},
        {"op":"transpose","name":"tAT","input":"rAT","dim0":0,"dim1":1},{"op":"getitem","name":"vAT","input":"tAT","index":[":16385",0]}"#;
    assert!(held(again) >= large, "{} {large}", held(again));
    // What is made anew keeps nothing.
    let anew = format!(r#"{},{{"op":"neg","name":"vAT","input":"wAT"}}"#, view(16_385).replace("vAT", "wAT"));
    assert!(held(&anew) < small + (2 << 20), "{} {small}", held(&anew));
}

/// The price of a program that makes those values and saves the last.
fn price_of(nodes: &[&str]) -> pellucid_graph::check::Price {
    let named = nodes.iter().enumerate().map(|(at, node)| format!(r#"{{"name":"v{at}",{node}}}"#));
    let all: Vec<String> = named.collect();
    price(&format!(r#"{},{{"op":"save","name":"s","value":"v{}"}}"#, all.join(","), nodes.len() - 1))
}

/// A tensor of zeros.
fn zeros(dtype: &str, sizes: &[u64]) -> String {
    format!(r#""op":"zeros","size":{sizes:?},"dtype":"{dtype}""#)
}

#[test]
fn products_on_the_way_of_an_einsum_are_priced() {
    const SIDE: u64 = 46_340;
    let a = zeros("f32", &[SIDE]);
    let way = price_of(&[&a, r#""op":"einsum","equation":"i,j,i,j->","operands":["v0","v0","v0","v0"]"#]);
    // The product of the first two, and its copy in the order in which the third is multiplied.
    assert!(way.peak_bytes >= 2 * 4 * SIDE * SIDE, "{way:?}");
    // Half a nanosecond for each element that is copied.
    assert!(way.flops >= 10 * SIDE * SIDE, "{way:?}");
    let whole = zeros("u8", &[1000, 1000]);
    let widened = price_of(&[&whole, r#""op":"einsum","equation":"ij,jk->ik","operands":["v0","v0"]"#]);
    // Both operands and the result as whole numbers of 64 bits, beside both and what is saved.
    assert!(widened.peak_bytes >= (3 * 8 + 1 + 1) * 1_000_000, "{widened:?}");
    let plain = zeros("f32", &[1000, 1000]);
    let product = price_of(&[&plain, r#""op":"einsum","equation":"ij,jk->ik","operands":["v0","v0"]"#]);
    // The right one is packed, in panels of 32 columns.
    assert!(
        product.peak_bytes <= (4 + 4 + 4) * 1_000_000 + 4 * 1_024_000 + (2 << 20) + 4_096,
        "it needs nothing else: {product:?}"
    );
}

#[test]
fn places_that_index_tensors_name_together_are_priced() {
    const SIDE: u64 = 46_340;
    let (x, down, right) = (zeros("u8", &[1, 1, 1]), zeros("i64", &[SIDE, 1]), zeros("i64", &[1, SIDE]));
    let index = r#"[{"tensor":"v1"},{"tensor":"v2"}]"#;
    let put = price_of(&[
        &x,
        &down,
        &right,
        &format!(r#""op":"index_put","input":"v0","index":{index},"values":1"#),
    ]);
    // How far the places are from the beginning, and one index tensor's part of that.
    assert!(put.peak_bytes >= 16 * SIDE * SIDE, "{put:?}");
    let x = zeros("u8", &[1, 1]);
    let read = price_of(&[&x, &down, &right, &format!(r#""op":"getitem","input":"v0","index":{index}"#)]);
    assert!(read.peak_bytes >= (16 + 1) * SIDE * SIDE, "{read:?}");

    const COUNT: u64 = 1 << 20;
    let (x, index) = (zeros("f32", &[1, 4]), zeros("i64", &[COUNT, 1]));
    let taken = price_of(&[&x, &index, r#""op":"take_along_dim","input":"v0","indices":"v1","dim":1"#]);
    assert!(taken.peak_bytes >= (8 + 8 + 4) * COUNT, "{taken:?}");
    let (x, index) = (zeros("f32", &[4]), zeros("i32", &[COUNT]));
    let gathered = price_of(&[&x, &index, r#""op":"gather","input":"v0","dim":0,"index":"v1""#]);
    assert!(gathered.peak_bytes >= (4 + 16 + 4) * COUNT, "{gathered:?}");
}

#[test]
fn a_mask_names_as_many_places_as_it_has_elements() {
    let (x, mask, index) =
        (zeros("f32", &[4_000, 4_000]), zeros("bool", &[4_000]), zeros("i64", &[4_000, 1]));
    let put = price_of(&[
        &x,
        &mask,
        &index,
        r#""op":"index_put","input":"v0","index":[{"tensor":"v1"},{"tensor":"v2"}],"values":1"#,
    ]);
    assert!(put.peak_bytes >= (4 + 4 + 16) * 16_000_000, "{put:?}");
    assert!(put.flops >= 10 * 16_000_000, "{put:?}");
}

#[test]
fn each_matrix_of_a_batch_is_priced_however_small_it_is() {
    const COUNT: u64 = 1 << 20;
    let matrices = zeros("f32", &[COUNT, 1, 1]);
    for decomposed in
        [r#""op":"svd","input":"v0""#, r#""op":"qr","input":"v0""#, r#""op":"inv","input":"v0""#]
    {
        let batch = price_of(&[&matrices, decomposed]);
        assert!(batch.flops >= 10_000 * COUNT, "{decomposed}: {batch:?}");
        // A matrix with the line of the cache that it begins at, and the vector of its rows.
        assert!(batch.peak_bytes >= (64 + 48 + 24 + 8) * COUNT, "{decomposed}: {batch:?}");
    }
    let batch = price_of(&[&matrices, r#""op":"svd","input":"v0""#]);
    assert!(batch.peak_bytes >= (2 * (64 + 48) + 24 + 8 + 8) * COUNT, "{batch:?}");
    let system = price_of(&[&matrices, r#""op":"solve","A":"v0","B":"v0""#]);
    assert!(system.flops >= 20_000 * COUNT && system.peak_bytes >= 2 * (64 + 48) * COUNT, "{system:?}");
    let product = price_of(&[&matrices, r#""op":"matmul","input":"v0","other":"v0""#]);
    assert!(product.flops >= 200 * COUNT, "{product:?}");
    let product = price_of(&[&matrices, r#""op":"einsum","equation":"bij,bjk->bik","operands":["v0","v0"]"#]);
    assert!(product.flops >= 200 * COUNT, "{product:?}");
    // One matrix alone is priced by its elements.
    let alone = zeros("f32", &[16, 16]);
    assert!(price_of(&[&alone, r#""op":"inv","input":"v0""#]).flops < 200_000);
}

#[test]
fn rows_that_are_compared_each_with_each_are_priced_as_often() {
    const SIDE: u64 = 1_000;
    let (x, y) = (zeros("f32", &[SIDE, 1, 64]), zeros("f32", &[1, SIDE, 64]));
    let compared = price_of(&[&x, &y, r#""op":"cosine_similarity","x1":"v0","x2":"v1","dim":2"#]);
    assert!(compared.flops >= 30 * SIDE * SIDE * 64, "{compared:?}");
    let (x, y) = (zeros("f32", &[SIDE, 1, 2]), zeros("f32", &[1, SIDE, 2]));
    let short = price_of(&[&x, &y, r#""op":"cosine_similarity","x1":"v0","x2":"v1","dim":2"#]);
    assert!(short.flops >= 300 * SIDE * SIDE, "{short:?}");
}

#[test]
fn what_is_widened_to_be_computed_with_is_priced() {
    const COUNT: u64 = 1 << 20;
    let of = |dtype: &str, node: &str| {
        price_of(&[&zeros(dtype, &[COUNT]), &zeros(dtype, &[COUNT]), node]).peak_bytes
    };
    let add = r#""op":"add","input":"v0","other":"v1""#;
    // Both operands, and both and the result as i64, and the result.
    assert!(of("u8", add) >= (2 + 3 * 8 + 1) * COUNT, "{}", of("u8", add));
    assert!(of("bf16", add) >= (4 + 3 * 4 + 2) * COUNT, "{}", of("bf16", add));
    for (dtype, size) in [("f32", 4), ("f64", 8), ("i64", 8)] {
        // What is saved counts twice.
        assert!(of(dtype, add) < 4 * size * COUNT + 4_096, "{dtype} is computed with as it lies");
    }
    let exp = r#""op":"exp","input":"v0""#;
    assert!(of("f16", exp) >= (2 + 4 + 4 + 2) * COUNT && of("f32", exp) < 3 * 4 * COUNT + 4_096);
    let any = r#""op":"any","input":"v0""#;
    assert!(of("bool", any) >= (1 + 1 + 8) * COUNT, "{}", of("bool", any));

    let (one, many) = (zeros("u8", &[1]), format!(r#""op":"expand","input":"v0","size":[{COUNT}]"#));
    let sum = price_of(&[&one, &many, r#""op":"sum","input":"v1""#]).peak_bytes;
    assert!(sum >= 9 * COUNT, "{sum}");
}

#[test]
fn losses_and_steps_are_priced_by_the_doubles_that_they_hold() {
    const COUNT: u64 = 1 << 20;
    let (input, lone) = (zeros("bf16", &[COUNT]), zeros("bf16", &[1]));
    let squares = price_of(&[&input, &lone, r#""op":"mse_loss","input":"v0","target":"v1""#]).peak_bytes;
    // Input, target and losses.
    assert!(squares >= (2 + 3 * 8) * COUNT, "{squares}");
    let plain = zeros("f32", &[COUNT]);
    let binary = price_of(&[
        &plain,
        r#""op":"binary_cross_entropy_with_logits","input":"v0","target":"v0","weight":"v0","pos_weight":"v0""#,
    ]);
    assert!(binary.peak_bytes >= (4 + 5 * 8) * COUNT, "{binary:?}");
    let (logits, targets) = (zeros("f32", &[1024, 1024]), zeros("i64", &[1024]));
    let classes = price_of(&[&logits, &targets, r#""op":"cross_entropy","input":"v0","target":"v1""#]);
    assert!(classes.peak_bytes >= (4 + 8) * COUNT, "{classes:?}");
    let step = price_of(&[
        &plain,
        r#""op":"adam_step","parameter":"v0","gradient":"v0","exp_avg":"v0","exp_avg_sq":"v0","step":1,"lr":0.1"#,
    ]);
    assert!(step.peak_bytes >= (4 + 4 * 8 + 3 * 4) * COUNT, "{step:?}");
}

#[test]
fn a_getter_of_which_columns_are_indexed_is_not_held_beyond_them() {
    let held = |index: &str| {
        let tokens = vec!["1"; 60].join(",");
        let trace = |at: usize| {
            format!(
                r#"{{"op":"trace","generate":{{"max_new_tokens":2,"stop_tokens":[]}},"invokes":[{{"name":"a","tokens":[[{tokens}]]}}],"body":[
                {{"op":"get","name":"h{at}","hook":"logits"}},{{"op":"getitem","name":"v{at}","input":"h{at}","index":[{index}]}}]}},"#
            )
        };
        held_together(trace)
    };
    // Of sixty positions twenty; or of all of them a third of the vocabulary, of which nothing is known here.
    let (columns, all) = (held(r#"":","-20:""#), held(r#"":",":",":333""#));
    let logits = 60 * 1_000 * 4;
    assert!(all >= columns + 5 * logits, "{all} {columns}");
}
