//! What is kept of a job that has ended, in short: names and lines are a stranger's, and it is kept for long.

use pellucid_client::api::{Problem, Saved};
use pellucid_engine::{Results, Tensor};

use super::listen;

/// Values of a result's small tensors that are kept with its job, at most.
pub(super) const SMALL_VALUES: usize = 256;
/// Saved values that are listed with a job, at most; and bytes of their names.
const LISTED: usize = 100;
const NAME_BYTES: usize = 16 << 10;
/// Bytes of each text of a problem that is kept with its job.
const TEXT_BYTES: usize = 500;
/// Cuts the texts of a problem.
pub(super) fn shorten(problem: &mut Problem) {
    let own = [&mut problem.detail, &mut problem.hint, &mut problem.trace];
    own.into_iter().flatten().for_each(cut);
    for fault in &mut problem.faults {
        cut(&mut fault.message);
        [&mut fault.node, &mut fault.place, &mut fault.hint].into_iter().flatten().for_each(cut);
        if let Some(source) = &mut fault.source {
            cut(&mut source.file);
            source.text.iter_mut().for_each(cut);
        }
    }
}

fn cut(text: &mut String) {
    if text.len() > TEXT_BYTES {
        text.truncate(text.floor_char_boundary(TEXT_BYTES));
        text.push('…');
    }
}

/// The saved values, in short; small ones whole, as long as they are not too many.
pub(super) fn saved(results: &Results) -> Vec<Saved> {
    let mut left = SMALL_VALUES;
    let short = |(name, tensor): (&String, &Tensor)| {
        let mut saved = listen::saved(name, tensor);
        let count = saved.values.as_ref().map_or(0, Vec::len);
        if count > left {
            saved.values = None;
        } else {
            left -= count;
        }
        saved
    };
    let named = listed(results.tensors.keys());
    results.tensors.iter().take(named).map(short).collect()
}

/// How many of some names are listed with a job.
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a String>) -> usize {
    let bytes = names.take(LISTED).scan(0, |sum, name| {
        *sum += name.len();
        Some(*sum)
    });
    bytes.take_while(|&bytes| bytes <= NAME_BYTES).count()
}

#[cfg(test)]
mod tests {
    use super::{LISTED, NAME_BYTES, TEXT_BYTES, cut, listed};

    #[test]
    fn what_is_kept_with_a_job_is_short_whatever_its_owner_calls_things() {
        let mut text = "é".repeat(TEXT_BYTES);
        cut(&mut text);
        assert!(text.len() <= TEXT_BYTES + "…".len() && text.ends_with("é…"));
        let mut text = "as it is".to_owned();
        cut(&mut text);
        assert_eq!(text, "as it is");
        let names = |count: usize, bytes: usize| vec!["n".repeat(bytes); count];
        assert_eq!(listed(names(3, 10).iter()), 3);
        assert_eq!(listed(names(2 * LISTED, 3).iter()), LISTED);
        assert_eq!(listed(names(LISTED, 1000).iter()), NAME_BYTES / 1000);
    }
}
