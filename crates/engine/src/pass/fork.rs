//! Sequences that part ways in a pass: copies of rows, and rows that nobody reads any more.

use std::ops::Range;
use std::sync::Arc;

use super::PassState;
use crate::slots::SlotValue;

impl PassState {
    /// Copies sequences, each from a position on (from its first row on: all of it), to the end of the pass. Once rows are
    /// narrowed only whole sequences can be copied.
    pub fn fork(&mut self, copies: &[(usize, usize)]) {
        if copies.is_empty() {
            return;
        }
        let skipped = |state: &PassState, (number, position): (usize, usize)| {
            position.saturating_sub(state.sequences[number].start).min(state.rows[number].len())
        };
        let mut kept: Vec<usize> = (0..self.tokens()).collect();
        let mut ranges = Vec::with_capacity(copies.len());
        for &copy in copies {
            let rows = self.rows[copy.0].clone();
            let first = kept.len();
            kept.extend(rows.start + skipped(self, copy)..rows.end);
            ranges.push(first..kept.len());
        }
        self.keep_rows(&kept);
        for &copy in copies {
            let (tokens, skipped) = (self.rows[copy.0].len(), skipped(self, copy));
            let context = self.sequences[copy.0].start + tokens;
            for value in self.slots.iter_mut().flatten() {
                if let SlotValue::Ragged(all) = value {
                    let part = all[copy.0].as_ref().map(|values| {
                        if skipped == 0 {
                            values.clone()
                        } else {
                            part(values, context, tokens, skipped..tokens, context)
                        }
                    });
                    all.push(part);
                }
            }
            let forked = self.sequences[copy.0].fork(copy.1);
            self.sequences.push(forked);
        }
        self.rows.extend(ranges);
    }

    /// Keeps of each sequence only those of its rows, the last ones or those that are read when rows are narrowed. Only after the last
    /// attention, where it no longer matters where a row stands, and not once rows are narrowed.
    pub fn keep_only(&mut self, places: &[Vec<usize>]) {
        let mut kept = Vec::new();
        let mut ranges = Vec::with_capacity(self.rows.len());
        for ((sequence, rows), places) in self.sequences.iter_mut().zip(&self.rows).zip(places) {
            // A next step comes after all of its tokens.
            sequence.start += rows.len() - places.len();
            sequence.tokens =
                places.iter().filter_map(|&place| sequence.tokens.get(place).copied()).collect();
            if let Some(narrow) = &mut sequence.narrow {
                *narrow = narrow.iter().filter_map(|place| places.binary_search(place).ok()).collect();
            }
            let first = kept.len();
            kept.extend(places.iter().map(|place| rows.start + place));
            ranges.push(first..kept.len());
        }
        if kept.len() < self.tokens() {
            self.keep_rows(&kept);
            self.rows = ranges;
        }
    }

    /// Keeps only so many of each sequence's first rows. Not once rows are narrowed.
    pub fn crop(&mut self, lengths: &[usize]) {
        let cut = |(rows, &length): (&Range<usize>, &usize)| rows.start..rows.start + length.min(rows.len());
        let kept: Vec<Range<usize>> = self.rows.iter().zip(lengths).map(cut).collect();
        if kept == self.rows {
            return;
        }
        self.keep_rows(&kept.iter().cloned().flatten().collect::<Vec<_>>());
        for value in self.slots.iter_mut().flatten() {
            if let SlotValue::Ragged(all) = value {
                for (number, values) in all.iter_mut().enumerate() {
                    let (tokens, left) = (self.rows[number].len(), kept[number].len());
                    let start = self.sequences[number].start;
                    if let Some(values) = values
                        && left < tokens
                    {
                        // No row sees the keys that go with the rows after it.
                        *values = part(values, start + tokens, tokens, 0..left, start + left);
                    }
                }
            }
        }
        let mut end = 0;
        for ((sequence, rows), kept) in self.sequences.iter_mut().zip(&mut self.rows).zip(kept) {
            sequence.tokens.truncate(kept.len());
            *rows = end..end + kept.len();
            end += kept.len();
        }
    }
}

/// Some queries' lines of scores or a pattern `[heads, tokens, context]`, and only its first `keys`.
fn part(values: &[f32], context: usize, tokens: usize, kept: Range<usize>, keys: usize) -> Arc<Vec<f32>> {
    let mut out = Vec::new();
    for head in values.chunks_exact((tokens * context).max(1)) {
        for line in head.chunks_exact(context).take(kept.end).skip(kept.start) {
            out.extend_from_slice(&line[..keys]);
        }
    }
    Arc::new(out)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pellucid_models::{Model, ModelOptions};

    use super::part;
    use crate::pass::{PassState, Sequence};
    use crate::slots::{Rows, SlotValue};

    #[test]
    fn of_each_sequence_the_rows_from_a_position_on_are_kept_and_stand_where_they_stood() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/models/gpt2");
        let model = Arc::new(Model::open(folder, &ModelOptions::default()).unwrap());
        let narrow = Some(vec![1, 3]);
        let sequences =
            vec![Sequence { narrow, ..Sequence::new(vec![4, 5, 6, 7]) }, Sequence::new(vec![8, 9])];
        let mut state = PassState::begin(model.stages(), sequences);
        let slot = model.stages().stages[0].outputs[0];
        state.put(slot, SlotValue::Rows(Rows::contiguous(vec![0., 1., 2., 3., 4., 5.], &[1])));
        state.keep_only(&[vec![1, 2, 3], vec![0, 1]]);
        assert_eq!(state.rows, [0..3, 3..5]);
        let [first, second] = &state.sequences[..] else { panic!("two sequences") };
        assert_eq!(
            (first.start, first.tokens.as_slice(), first.narrow.as_deref()),
            (1, &[5, 6, 7][..], Some(&[0, 2][..]))
        );
        assert_eq!((second.start, second.tokens.as_slice()), (0, &[8, 9][..]));
        let Some(SlotValue::Rows(rows)) = state.slot(slot) else { panic!("rows") };
        assert_eq!(rows.packed(5), [1., 2., 3., 4., 5.]);
    }

    #[test]
    fn a_part_of_a_pattern_has_every_heads_own_lines() {
        // Two heads, three queries, four keys.
        let values: Vec<f32> = (0..24_u8).map(f32::from).collect();
        assert_eq!(*part(&values, 4, 3, 2..3, 4), [8., 9., 10., 11., 20., 21., 22., 23.]);
        assert_eq!(*part(&values, 4, 3, 0..2, 3), [0., 1., 2., 4., 5., 6., 12., 13., 14., 16., 17., 18.]);
    }
}
