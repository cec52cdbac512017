#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use pellucid_graph::check::{CheckedProgram, SpecIndex};
use pellucid_graph::{Argument, IndexItem, NodeId, NodeKind, Program};
use pellucid_models::{Model, ModelOptions};

use super::{ColumnsRead, among, last_item, place_of, together, unembedding, worthwhile};

/// A vocabulary of 96.
fn model() -> Model {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/models/gpt2");
    Model::open(folder, &ModelOptions::default()).unwrap()
}

fn checked(nodes: &str) -> CheckedProgram {
    let text = format!(
        r#"{{"pellucid":1,"body":[{{"op":"trace","invokes":[{{"name":"p","tokens":[[1,2,3,4]]}}],"body":[
        {{"op":"literal","name":"few","dtype":"i64","shape":[2],"elements":[70,-1]}},
        {{"op":"get","name":"l","invoke":"p","hook":"logits"}},{nodes}]}}]}}"#
    );
    let program = Program::from_bytes(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    let model = model();
    let index = SpecIndex::new(model.spec());
    pellucid_graph::check::check(program, &index).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

fn users(checked: &CheckedProgram) -> Vec<Vec<NodeId>> {
    let mut users = vec![Vec::new(); checked.nodes.len()];
    for (place, node) in checked.program.nodes.iter().enumerate() {
        node.values().iter().for_each(|value| users[value.node.index()].push(NodeId(place as u32)));
    }
    users
}

fn getter(checked: &CheckedProgram) -> NodeId {
    let nodes = &checked.program.nodes;
    NodeId(nodes.iter().position(|node| matches!(node.kind, NodeKind::Get(_))).unwrap() as u32)
}

fn read(nodes: &str) -> Option<ColumnsRead> {
    let checked = checked(nodes);
    let users = users(&checked);
    let mut read = ColumnsRead::default();
    read.read(&checked, &|id| Some(users[id.index()].as_slice()), getter(&checked))?;
    Some(read)
}

fn columns(nodes: &str) -> Option<Vec<usize>> {
    read(nodes).map(|read| read.columns)
}

/// A node that picks from a value, saved.
fn picked(name: &str, input: &str, index: &str) -> String {
    format!(
        r#"{{"op":"getitem","name":"{name}","input":"{input}","index":{index}}},{{"op":"save","name":"s{name}","value":"{name}"}}"#
    )
}

#[test]
fn places_slices_and_literals_of_the_last_dimension_name_columns() {
    for (index, expected) in [
        ("[0,-1,5]", vec![5]),
        ("[0,-1,-1]", vec![95]),
        (r#"[":",":",7]"#, vec![7]),
        (r#"["...",7]"#, vec![7]),
        (r#"[0,-1,7,"..."]"#, vec![7]),
        (r#"[0,null,-1,7,null]"#, vec![7]),
        (r#"[0,-1,"3:6"]"#, vec![3, 4, 5]),
        (r#"[0,-1,"90::3"]"#, vec![90, 93]),
        (r#"[0,-1,"-2:"]"#, vec![94, 95]),
        (r#"[0,-1,"5:5"]"#, vec![]),
        (r#"[0,-1,{"tensor":"few"}]"#, vec![70, 95]),
        (r#"["...",{"tensor":"few"}]"#, vec![70, 95]),
    ] {
        assert_eq!(columns(&picked("a", "l", index)), Some(expected), "{index}");
    }
}

#[test]
fn what_picks_positions_hands_the_columns_on() {
    for index in ["[0,-1]", r#"[0,":"]"#, "[0]", r#"["...",":"]"#, r#"[0,-1,":"]"#, r#"[":",-1,"..."]"#] {
        let rows = format!(r#"{{"op":"getitem","name":"o","input":"l","index":{index}}}"#);
        let few = format!(
            "{rows},{},{}",
            picked("a", "o", r#"["...",5]"#),
            picked("b", "o", r#"["...",{"tensor":"few"}]"#)
        );
        let found = read(&few).unwrap_or_else(|| panic!("{index}"));
        assert_eq!((found.columns, found.through.len()), (vec![5, 70, 95], 1), "{index}");
    }
    // Two getters of the same logits, and one column twice.
    let twice = format!("{},{}", picked("a", "l", "[0,-1,5]"), picked("b", "l", "[0,-2,5]"));
    assert_eq!(columns(&twice), Some(vec![5]));
    for node in [
        r#"{"op":"index_select","name":"a","input":"l","dim":-1,"index":"few"},{"op":"save","name":"s","value":"a"}"#,
        r#"{"op":"index_select","name":"a","input":"l","dim":2,"index":"few"},{"op":"save","name":"s","value":"a"}"#,
    ] {
        assert_eq!(columns(node), Some(vec![70, 95]));
    }
}

#[test]
fn what_needs_them_all_or_says_them_too_late_reads_them_all() {
    for nodes in [
        r#"{"op":"save","name":"s","value":"l"}"#.to_owned(),
        picked("a", "l", "[0,-1]"),
        // The vocabulary is not the last dimension any more.
        format!(
            r#"{{"op":"getitem","name":"o","input":"l","index":["...",null]}},{}"#,
            picked("a", "o", r#"["...",0]"#)
        ),
        // Which one is known only when it is there.
        format!(
            r#"{{"op":"getitem","name":"o","input":"l","index":[0,-1]}},{{"op":"argmax","name":"m","input":"o"}},{}"#,
            picked("a", "l", r#"[0,-1,{"tensor":"m"}]"#)
        ),
        format!(r#"{{"op":"softmax","name":"o","input":"l","dim":-1}},{}"#, picked("a", "o", "[0,-1,5]")),
        format!("{},{}", picked("a", "l", "[0,-1,5]"), r#"{"op":"save","name":"all","value":"l"}"#),
        r#"{"op":"index_select","name":"a","input":"l","dim":1,"index":"few"},{"op":"save","name":"s","value":"a"}"#
            .to_owned(),
    ] {
        assert_eq!(columns(&nodes), None, "{nodes}");
    }
}

#[test]
fn what_picks_is_made_to_pick_the_same_columns_among_those_that_are_there() {
    let there = [5, 3, 4, 70, 95];
    for (index, expected) in [
        ("[0,-1,5]", Some(IndexItem::Integer(0))),
        ("[0,-1,-1]", Some(IndexItem::Integer(4))),
        (r#"[0,-1,"3:5"]"#, Some(IndexItem::Slice { start: Some(1), stop: Some(3), step: 1 })),
        (r#"[0,-1,"70:96:25"]"#, Some(IndexItem::Slice { start: Some(3), stop: Some(5), step: 1 })),
        ("[0,-1,6]", None),
        (r#"[0,-1,"3:6"]"#, None),
    ] {
        let checked = checked(&picked("a", "l", index));
        let getter = getter(&checked);
        let node = &checked.program.nodes[getter.index() + 1].kind;
        let NodeKind::Operation(operation) = node else { panic!("{node:?}") };
        let found = among(&checked, operation, getter, &there).map(|among| {
            assert!(among.index.is_none());
            let Some(Argument::Index(items)) = among.operation.arguments.get(1) else { panic!("{index}") };
            assert_eq!(items[..2], [IndexItem::Integer(0), IndexItem::Integer(-1)]);
            items[2].clone()
        });
        assert_eq!(found, expected, "{index}");
    }
    let checked = checked(&picked("a", "l", r#"[0,-1,{"tensor":"few"}]"#));
    let getter = getter(&checked);
    let NodeKind::Operation(operation) = &checked.program.nodes[getter.index() + 1].kind else { panic!() };
    let found = among(&checked, operation, getter, &there).unwrap();
    assert_eq!(found.index.map(|(_, places)| places), Some(vec![3, 4]));
    assert!(among(&checked, operation, getter, &[95]).is_none());
}

#[test]
fn few_columns_pay_and_readers_of_the_same_rows_have_them_in_common() {
    assert!(worthwhile(&[0, 31, 64], 96) && !worthwhile(&[], 96));
    assert!(!worthwhile(&[0, 32, 64], 96) && worthwhile(&[0, 32, 64], 97));
    let some = |columns: &[usize]| Some(Arc::<[usize]>::from(columns));
    let all = |readers: &[Option<Arc<[usize]>>]| {
        together(readers.iter().map(Option::as_ref), 96).map(|columns| columns.to_vec())
    };
    assert_eq!(all(&[some(&[7, 3])]), Some(vec![7, 3]));
    assert_eq!(all(&[some(&[7, 3]), some(&[3, 40])]), Some(vec![7, 3, 40]));
    assert_eq!(all(&[some(&[7, 3]), None]), None);
    assert_eq!(all(&[some(&[7, 40]), some(&[90])]), None);
    assert_eq!(all(&[]), None);
}

#[test]
fn places_are_found() {
    assert_eq!(place_of(&[4, 5, 6], &[5, 6]), Some(1));
    assert_eq!(place_of(&[4, 5, 6], &[4, 6]), None);
    assert_eq!(place_of(&[4], &[]), Some(0));
    let whole = IndexItem::Slice { start: None, stop: None, step: 1 };
    assert_eq!(last_item(&[IndexItem::Integer(0), IndexItem::Integer(1)], 3), None);
    assert_eq!(last_item(&[IndexItem::Ellipsis], 1), None);
    assert_eq!(last_item(&[whole.clone(), IndexItem::NewAxis, whole], 2), Some(2));
}

#[test]
fn every_family_has_an_unembedding_of_which_columns_can_be_computed_alone() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/models");
    let mut found = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.join("golden.json").is_file() {
            continue;
        }
        let model = Model::open(path.to_str().unwrap(), &ModelOptions::default()).unwrap();
        let list = model.stages();
        let stage = unembedding(list).unwrap_or_else(|| panic!("{}", path.display()));
        assert!(stage > list.token_wise_from, "{}", path.display());
        found += 1;
    }
    assert!(found >= 15, "{found} models");
}
