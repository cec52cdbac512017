#![allow(clippy::unwrap_used, reason = "tests")]

use pellucid_engine::{
    ExplainedModel, ExplainedParked, ExplainedPass, ExplainedPassenger, ExplainedSharing, Explanation,
    Measured,
};

use super::{LANES, areas, runs, write_html};

fn model() -> ExplainedModel {
    ExplainedModel {
        name: String::new(),
        stages: 100,
        layers: vec![(10, 50), (50, 90)],
        late_at: 80,
        narrows_at: 90,
        unembeds_at: Some(95),
    }
}

fn passenger() -> ExplainedPassenger {
    ExplainedPassenger {
        invoke: "p<b>".into(),
        cells: 1,
        step: 0,
        prompts: 1,
        tokens: 8,
        width: 8,
        rows_from: 0,
        late_from: 0,
        late_is_read: false,
        columns: Some(vec![7]),
        vocabulary: None,
        until: "lm_head.output".into(),
        end: 100,
        shares: None,
        after: Vec::new(),
        lends: None,
        cached: 0,
        resumed: false,
        back: None,
    }
}

fn forked() -> ExplainedPassenger {
    let shares = ExplainedSharing {
        with: "c\"q".into(),
        until: Some("h.0.attn".into()),
        then: Vec::new(),
        leaves: Some(40),
        column: 7,
        tokens: 1,
    };
    ExplainedPassenger { shares: Some(shares), ..passenger() }
}

fn pass(passengers: Vec<ExplainedPassenger>) -> ExplainedPass {
    ExplainedPass {
        model: String::new(),
        traces: (0, 0),
        from: "the beginning".into(),
        to: "lm_head.output".into(),
        cut: false,
        stages: (0, 100),
        tokens: 9,
        flops: 2_000_000,
        bytes: 1000,
        naive_flops: 4_000_000,
        naive_bytes: 2000,
        back_flops: 0,
        naive_back_flops: 0,
        read_bytes: 0,
        freed_bytes: 0,
        estimated_ms: 0.25,
        measured_ms: None,
        gigaflops: None,
        passengers,
        more_passengers: 0,
        parked: vec![ExplainedParked { place: "h.1.<i>".into(), stage: 60, invoke: "p<b>".into(), cells: 1 }],
        more_passes: 0,
    }
}

fn plan(passes: Vec<ExplainedPass>) -> Explanation {
    let text = r#"{"model":"m","price":{"flops":1,"peak_bytes":2,"result_bytes":3,"tokens":4},"passes":[],"nodes":[1,2]}"#;
    Explanation { passes, models: vec![model()], ..serde_json::from_str(text).unwrap() }
}

fn drawn(plan: &Explanation) -> String {
    let mut html = String::new();
    write_html(plan, &mut html).unwrap();
    html
}

/// What is drawn over each place of a lane, of stages by tens and columns: the first letter of its class.
fn grid(passenger: &ExplainedPassenger) -> Vec<String> {
    let all = areas(&model(), &pass(Vec::new()), passenger);
    let over = |column: usize, stage: usize| {
        let there = |range: (usize, usize), place: usize| range.0 <= place && place < range.1;
        let last =
            all.iter().rev().find(|area| there(area.columns, column) && there(area.depth, stage)).unwrap();
        last.class.chars().next().unwrap()
    };
    (0..8).map(|column| (0..10).map(|ten| over(column, ten * 10)).collect()).collect()
}

#[test]
fn what_is_computed_for_whom_is_seen_by_layers_and_positions() {
    // All positions up to the final norm, the last one from there on.
    assert_eq!(grid(&passenger()), [["ooooooooon"; 7].as_slice(), &["oooooooooo"]].concat());
    // After the last attention those from the first on that is read.
    let late = ExplainedPassenger { late_from: 5, ..passenger() };
    let expected = [["oooooooonn"; 5].as_slice(), &["ooooooooon"; 2], &["oooooooooo"]].concat();
    assert_eq!(grid(&late), expected);
    // From the fork on its own is the last position; for the others it attends to the shared rows.
    assert_eq!(grid(&forked()), [["ssssaaaaan"; 7].as_slice(), &["ssssoooooo"]].concat());
    // A beginning that is another's; nothing after the last hook point that matters.
    let after = vec![("q".to_owned(), 3)];
    let begun = ExplainedPassenger { rows_from: 3, after, columns: None, end: 50, ..passenger() };
    assert_eq!(grid(&begun), [["aaaaannnnn"; 3].as_slice(), &["ooooonnnnn"; 5]].concat());
    // The first of those that share, whose rows are computed on for the others; one that lends its first columns.
    let first = ExplainedPassenger { lends: Some((80, 7)), ..forked() };
    assert_eq!(grid(&first), [["ssssssssnn"; 7].as_slice(), &["ssssoooooo"]].concat());
    let lending = ExplainedPassenger { lends: Some((80, 3)), end: 50, columns: None, ..passenger() };
    assert_eq!(grid(&lending), [["ooooosssnn"; 3].as_slice(), &["ooooonnnnn"; 5]].concat());
    // One that goes on from the cache.
    let from_cache = ExplainedPassenger { rows_from: 7, cached: 7, resumed: true, ..passenger() };
    let mut resumed = pass(Vec::new());
    resumed.stages.0 = 30;
    let all = areas(&model(), &resumed, &from_cache);
    let own = all.iter().filter(|area| area.class == "own").map(|area| (area.depth, area.columns));
    assert_eq!(own.collect::<Vec<_>>(), [((30, 90), (7, 8)), ((90, 100), (7, 8))]);
    assert!(all.iter().any(|area| area.title == "the first 7 from the cache"));
    // One that forks only after the rows have been narrowed.
    let mut late = forked();
    late.shares.as_mut().unwrap().leaves = Some(95);
    late.columns = Some(vec![6, 7]);
    let expected = [["sssssssssn"; 6].as_slice(), &["ssssssssss"; 2]].concat();
    assert_eq!(grid(&late), expected);
    let own = areas(&model(), &pass(Vec::new()), &late).into_iter().find(|area| area.class == "own").unwrap();
    assert_eq!((own.depth, own.columns), ((95, 100), (7, 8)));
}

#[test]
fn columns_that_stand_together_are_one_area() {
    assert_eq!(runs(None, 2, 8), [(2, 8)]);
    assert_eq!(runs(Some(&[0, 1, 2, 5, 7]), 1, 8), [(1, 3), (5, 6), (7, 8)]);
    assert_eq!(runs(Some(&[]), 0, 8), []);
}

#[test]
fn names_that_come_from_programs_are_escaped_wherever_they_stand() {
    let html = drawn(&plan(vec![pass(vec![passenger(), forked()])]));
    for own in ["p<b>", "<i>", "c\"q"] {
        assert!(!html.replace("<i style", "").replace("<i class", "").contains(own), "{own}: {html}");
    }
    for shown in ["p&lt;b&gt;", "h.1.&lt;i&gt;", "c&quot;q", "leaves the shared rows at h.0.attn"] {
        assert!(html.contains(shown), "{shown}: {html}");
    }
}

#[test]
fn times_are_told_where_something_was_run() {
    let mut plan = plan(vec![pass(vec![passenger()])]);
    assert!(drawn(&plan).contains("nothing was run") && !drawn(&plan).contains("GFLOP/s"));
    plan.passes[0].measured_ms = Some(0.5);
    plan.measured = Some(Measured {
        ms: 0.75,
        passes_ms: 0.5,
        naive_ms: 1234.0,
        recomputed_layers: 0,
        instruction_set: "a&b".into(),
        weights: "f32".into(),
    });
    let html = drawn(&plan);
    for shown in [
        "<b>0.50 ms</b>, estimated at 0.25 ms · 4.00 GFLOP/s",
        "0.75 ms",
        "estimated at 0.25 ms, instead of about 1.23 s",
        "a&amp;b, f32 weights",
    ] {
        assert!(html.contains(shown), "{shown}: {html}");
    }
}

#[test]
fn what_is_too_much_to_draw_is_counted() {
    let many = plan(vec![pass(vec![passenger(); LANES + 3]), pass(vec![passenger(); 2])]);
    let html = drawn(&many);
    assert_eq!(html.matches("<svg").count(), LANES);
    assert!(html.contains("… and 3 lanes more.") && html.contains("… and 2 lanes more."));
    assert!(drawn(&plan(vec![pass(Vec::new()); 45])).contains("… and 5 passes more."));
    // A plan that came without its model is told in words.
    let unknown = Explanation { models: Vec::new(), ..many };
    assert!(drawn(&unknown).contains("9 tokens") && !drawn(&unknown).contains("<svg"));
}
