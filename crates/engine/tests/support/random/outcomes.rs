//! Whether two runs of a program came to the same.

use std::collections::BTreeMap;

use pellucid_engine::{Engine, EngineError, Results, Tensor};
use pellucid_graph::check::CheckedProgram;

/// The same to the bit; one NaN is as good as another: which of two becomes an operation's result is the processor's choice.
pub fn same_bits(one: &Tensor, other: &Tensor) -> bool {
    one.is_same_bits(other)
        || (one.dtype() == other.dtype()
            && one.shape() == other.shape()
            && one.dtype().is_float()
            && one
                .to_vec_f64()
                .unwrap()
                .iter()
                .zip(other.to_vec_f64().unwrap())
                .all(|(one, other)| one.to_bits() == other.to_bits() || (one.is_nan() && other.is_nan())))
}

/// Where two tensors differ: the first places, and how many.
fn places(one: &Tensor, other: &Tensor) -> String {
    let shapes = format!("{} {:?} against {} {:?}", one.dtype(), one.shape(), other.dtype(), other.shape());
    if one.shape() != other.shape() {
        return shapes;
    }
    let pairs: Vec<(f64, f64)> =
        one.to_vec_f64().unwrap().into_iter().zip(other.to_vec_f64().unwrap()).collect();
    let differ: Vec<usize> = (0..pairs.len())
        .filter(|&at| {
            let (one, other) = pairs[at];
            one.to_bits() != other.to_bits() && !(one.is_nan() && other.is_nan())
        })
        .collect();
    let first: Vec<String> =
        differ.iter().take(4).map(|&at| format!("[{at}] {:e} {:e}", pairs[at].0, pairs[at].1)).collect();
    format!("{shapes}, {} elements: {}", differ.len(), first.join(", "))
}

/// What differs between a run of a program and the simple one, in words; none: nothing. Where several nodes fail by
/// themselves, which of them is reported is the plan's: it must be one of them, and say of it the same.
pub fn difference_from_naive(
    engine: &Engine,
    program: &CheckedProgram,
    run: &Result<Results, EngineError>,
    naive: &Result<Results, EngineError>,
) -> Option<String> {
    let difference = difference(run, naive)?;
    let (Err(EngineError::Node(fault)), Err(EngineError::Node(_))) = (run, naive) else {
        return Some(difference);
    };
    match engine.naive_faults(program) {
        Ok(faults) => {
            let mut faults = faults.iter();
            (!faults.any(|other| other.node == fault.node && other.message == fault.message))
                .then_some(difference)
        }
        Err(error) => Some(format!(
            "{difference}
and the simple run does not go on: {error}"
        )),
    }
}

/// What differs between two outcomes of one program, in words; none: nothing.
pub fn difference(
    one: &Result<Results, EngineError>,
    other: &Result<Results, EngineError>,
) -> Option<String> {
    match (one, other) {
        (Err(one), Err(other)) => {
            let same = match (one, other) {
                (EngineError::Node(one), EngineError::Node(other)) => {
                    one.node == other.node && one.message == other.message
                }
                _ => one == other,
            };
            (!same).then(|| format!("fails with\n{one}\nagainst\n{other}"))
        }
        (Ok(one), Ok(other)) => {
            let names = |results: &Results| results.tensors.keys().cloned().collect::<Vec<_>>();
            if names(one) != names(other) {
                return Some(format!("saves {:?} against {:?}", names(one), names(other)));
            }
            let absent = |results: &Results| {
                let mut names = results.absent.clone();
                names.sort();
                names
            };
            if absent(one) != absent(other) {
                return Some(format!("absent {:?} against {:?}", absent(one), absent(other)));
            }
            for (name, tensor) in &one.tensors {
                if !same_bits(tensor, &other.tensors[name]) {
                    return Some(format!("`{name}` differs: {}", places(tensor, &other.tensors[name])));
                }
            }
            let logged = |results: &Results| {
                let mut logs: BTreeMap<(String, Vec<u64>, Option<u64>), Tensor> = BTreeMap::new();
                for entry in &results.logs {
                    let key = (entry.name.clone(), entry.coordinates.clone(), entry.step);
                    logs.insert(key, entry.value.clone());
                }
                logs
            };
            let (one, other) = (logged(one), logged(other));
            if one.len() != other.len()
                || one.iter().zip(&other).any(|(one, other)| one.0 != other.0 || !same_bits(one.1, other.1))
            {
                return Some("what is logged differs".into());
            }
            None
        }
        (Ok(_), Err(error)) => Some(format!("succeeds against\n{error}")),
        (Err(error), Ok(_)) => Some(format!("fails, against success, with\n{error}")),
    }
}
