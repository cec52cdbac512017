//! What must happen before what is drawn with few edges, whatever the program.

use super::Checker;
use crate::check::SpecIndex;
use crate::limits;
use crate::program::Program;

/// How many edges are drawn of a trace on the bundled model, and how many nodes the program has.
fn edges(generate: &str, nodes: &[String]) -> (usize, usize) {
    let spec = serde_json::from_str(include_str!("../../../tests/specs/tiny-gpt2.json")).unwrap();
    let index = SpecIndex::new(&spec);
    let text = format!(
        r#"{{"pellucid":1,"body":[{{"op":"trace","invokes":[{{"name":"p","tokens":[[1,2,3]]}}]{generate},"body":[{}]}}]}}"#,
        nodes.join(",")
    );
    let program = Program::from_json(text.as_bytes()).unwrap();
    let models = [("", &index)];
    let mut checker = Checker::new(&program, &models);
    checker.structure();
    checker.names();
    checker.types();
    checker.gradients();
    assert!(checker.faults.is_empty(), "{:?}", checker.faults);
    let events = checker.events();
    assert!(!events.stuck().contains(&true));
    (events.successors.iter().map(Vec::len).sum(), program.nodes.len())
}

/// A way back from the sum of what so many nodes make of a hook point.
fn way_back(readers: usize) -> Vec<String> {
    let mut nodes = vec![
        r#"{"op":"literal","name":"z","dtype":"f32","shape":[],"elements":[0.0]}"#.to_owned(),
        r#"{"op":"get","name":"h","hook":"layers.2.output"}"#.to_owned(),
    ];
    nodes.extend((0..readers).map(|reader| format!(r#"{{"op":"sum","name":"t{reader}","input":"h"}}"#)));
    let read: Vec<String> = (0..readers).map(|reader| format!(r#""t{reader}""#)).collect();
    nodes.push(format!(r#"{{"op":"stack","name":"all","tensors":[{}]}}"#, read.join(",")));
    nodes.push(r#"{"op":"sum","name":"loss","input":"all"}"#.to_owned());
    nodes.push(r#"{"op":"backward","name":"b","of":"loss"}"#.to_owned());
    nodes
}

#[test]
fn gradients_written_at_one_place_make_a_few_edges_each() {
    for of in [r#""hook":"layers.1.output""#, r#""of":"h""#, r#""of":"all""#] {
        let mut nodes = way_back(500);
        let set = format!(r#"{{"op":"set_grad","backward":"b",{of},"value":"z"}}"#);
        nodes.extend(std::iter::repeat_n(set, 2000));
        let (edges, nodes) = edges("", &nodes);
        assert!(edges < 4 * nodes, "{edges} edges for {nodes} nodes after {of}");
    }
}

#[test]
fn a_value_that_a_list_names_often_makes_one_edge() {
    let mut nodes = way_back(1);
    let list = vec![r#""t0""#; 5000].join(",");
    nodes.insert(3, format!(r#"{{"op":"stack","name":"often","tensors":[{list}]}}"#));
    nodes[4] = r#"{"op":"sum","name":"all","input":"often"}"#.to_owned();
    nodes.push(r#"{"op":"grad","name":"g","backward":"b","of":"h"}"#.to_owned());
    let (edges, nodes) = edges("", &nodes);
    assert!(edges < 4 * nodes, "{edges} edges for {nodes} nodes");
}

/// The edges of a generation with a getter at each step, and a body of so many lists.
fn met(steps: usize, lists: usize, list: &str, mut nodes: Vec<String>) -> (usize, usize) {
    nodes
        .extend((0..steps).map(|step| {
            format!(r#"{{"op":"get","name":"g{step}","hook":"layers.0.output","step":{step}}}"#)
        }));
    let body: Vec<String> = (0..lists)
        .map(|number| format!(r#"{{"op":"stack","name":"l{number}","tensors":[{list}]}}"#))
        .collect();
    nodes.push(format!(r#"{{"op":"steps","body":[{}]}}"#, body.join(",")));
    let generate = format!(r#","generate":{{"max_new_tokens":{steps},"stop_tokens":[]}}"#);
    edges(&generate, &nodes)
}

fn literal(name: &str) -> String {
    format!(r#"{{"op":"literal","name":"{name}","dtype":"f32","shape":[],"elements":[0.0]}}"#)
}

#[test]
fn a_body_that_names_a_value_often_makes_one_edge_at_each_step() {
    let (steps, lists) = (100, 10);
    let (edges, _) = met(steps, lists, &vec![r#""z""#; 1000].join(","), vec![literal("z")]);
    assert!(edges < 3 * steps * lists, "{edges}");
}

#[test]
fn bodies_are_looked_at_at_further_steps_until_their_values_are_too_many() {
    let names: Vec<String> = (0..500).map(|number| format!("z{number}")).collect();
    let list: Vec<String> = names.iter().map(|name| format!(r#""{name}""#)).collect();
    let (edges, nodes) = met(120, 50, &list.join(","), names.iter().map(|name| literal(name)).collect());
    // 120 × 50 × 500 would be three times as many.
    assert!(edges < limits::MEETINGS + nodes + 50 * 500, "{edges}");
}
