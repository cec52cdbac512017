//! Attention: against the reference; fused and explicit, whole and in pieces, bit for bit.

mod common;

use common::{assert_same_bits, normal, on_every_isa};
use pellucid_kernels::attention::{attention_fused, attention_mixed, attention_pattern, attention_scores};
use pellucid_kernels::reference::{self, AttentionShape};
use pellucid_kernels::{AttentionOptions, HeadsView, HeadsViewMut, KeyValueStore, pool};

#[derive(Clone, Debug)]
struct Case {
    shape: AttentionShape,
    options: AttentionOptions,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Case {
    fn new(sizes: [usize; 6], soft_cap: Option<f32>, window: Option<usize>) -> Self {
        let [queries, context, heads, key_heads, size, value_size] = sizes;
        let shape = AttentionShape { queries, context, heads, key_heads, size, value_size };
        Self {
            shape,
            options: AttentionOptions { scale: 1.0 / (size as f32).sqrt(), soft_cap, window },
            queries: normal(1, queries * heads * size).iter().map(|x| 2.0 * x).collect(),
            keys: normal(2, context * key_heads * size),
            values: normal(3, context * key_heads * value_size),
        }
    }

    fn all() -> Vec<Self> {
        vec![
            Self::new([1, 1, 1, 1, 4, 4], None, None),
            Self::new([7, 7, 2, 2, 16, 16], None, None),
            Self::new([40, 40, 2, 1, 64, 64], None, None),
            Self::new([33, 70, 4, 2, 24, 40], Some(3.0), None),
            Self::new([70, 70, 3, 3, 32, 32], None, Some(5)),
            Self::new([50, 131, 6, 2, 20, 33], Some(2.0), Some(64)),
            Self::new([1, 200, 8, 1, 64, 80], None, None),
            Self::new([3, 90, 30, 1, 16, 16], None, Some(1)),
        ]
    }

    fn start(&self) -> usize {
        self.shape.context - self.shape.queries
    }

    fn keys_view(&self, range: std::ops::Range<usize>) -> HeadsView<'_> {
        let width = self.shape.key_heads * self.shape.size;
        let data = &self.keys[range.start * width..range.end * width];
        HeadsView::new(data, range.len(), self.shape.key_heads, self.shape.size, width)
    }

    fn values_view(&self, range: std::ops::Range<usize>) -> HeadsView<'_> {
        let width = self.shape.key_heads * self.shape.value_size;
        let data = &self.values[range.start * width..range.end * width];
        HeadsView::new(data, range.len(), self.shape.key_heads, self.shape.value_size, width)
    }

    fn queries_view(&self, range: std::ops::Range<usize>) -> HeadsView<'_> {
        let width = self.shape.heads * self.shape.size;
        let data = &self.queries[range.start * width..range.end * width];
        HeadsView::new(data, range.len(), self.shape.heads, self.shape.size, width)
    }

    fn store(&self) -> KeyValueStore {
        let mut store = KeyValueStore::new(self.shape.key_heads, self.shape.size, self.shape.value_size);
        store.append(self.keys_view(0..self.shape.context), self.values_view(0..self.shape.context));
        store
    }

    fn fused(&self, store: &KeyValueStore, range: std::ops::Range<usize>) -> Vec<f32> {
        let width = self.shape.heads * self.shape.value_size;
        let mut out = vec![f32::NAN; range.len() * width];
        let view = HeadsViewMut::new(&mut out, range.len(), self.shape.heads, self.shape.value_size, width);
        attention_fused(
            self.queries_view(range.clone()),
            store,
            self.start() + range.start,
            self.options,
            view,
        );
        out
    }

    fn explicit(&self, store: &KeyValueStore) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let AttentionShape { queries, context, heads, value_size, .. } = self.shape;
        let mut scores = vec![f32::NAN; heads * queries * context];
        attention_scores(self.queries_view(0..queries), store, self.start(), self.options, &mut scores);
        let mut pattern = scores.clone();
        attention_pattern(&mut pattern, context);
        let width = heads * value_size;
        let mut mixed = vec![f32::NAN; queries * width];
        let view = HeadsViewMut::new(&mut mixed, queries, heads, value_size, width);
        attention_mixed(&pattern, store, self.start(), self.options, view);
        (scores, pattern, mixed)
    }
}

#[test]
fn scores_pattern_and_mixed_values_agree_with_the_reference() {
    on_every_isa(|isa| {
        for case in Case::all() {
            let want =
                reference::attention(case.shape, &case.queries, &case.keys, &case.values, case.options);
            let (scores, pattern, mixed) = case.explicit(&case.store());
            for (what, got, want, bound) in [
                ("scores", &scores, &want.scores, 1e-5),
                ("pattern", &pattern, &want.pattern, 4e-6),
                ("mixed", &mixed, &want.mixed, 1e-5),
            ] {
                for (index, (got, want)) in got.iter().zip(want).enumerate() {
                    let close = if want.is_infinite() {
                        f64::from(*got) == *want
                    } else {
                        (f64::from(*got) - want).abs() <= bound
                    };
                    assert!(close, "{} {what} {:?} {index}: {got} for {want}", isa.name(), case.shape);
                }
            }
        }
    });
}

#[test]
fn fused_attention_has_the_bits_of_the_explicit_steps_on_any_number_of_threads() {
    on_every_isa(|isa| {
        for case in Case::all() {
            let store = case.store();
            let (.., mixed) = case.explicit(&store);
            for threads in [1, 2, 3] {
                let fused = pool::with_threads(threads, || case.fused(&store, 0..case.shape.queries));
                assert_same_bits(&format!("{} {:?}", isa.name(), case.shape), &fused, &mixed);
            }
        }
    });
}

#[test]
fn a_prompt_in_pieces_has_the_bits_of_the_whole() {
    on_every_isa(|isa| {
        for case in Case::all() {
            let whole = case.fused(&case.store(), 0..case.shape.queries);
            let width = case.shape.heads * case.shape.value_size;
            for piece in [1, 2, 5, 16, 37] {
                let mut store =
                    KeyValueStore::new(case.shape.key_heads, case.shape.size, case.shape.value_size);
                store.append(case.keys_view(0..case.start()), case.values_view(0..case.start()));
                for first in (0..case.shape.queries).step_by(piece) {
                    let range = first..(first + piece).min(case.shape.queries);
                    let positions = case.start() + range.start..case.start() + range.end;
                    store.append(case.keys_view(positions.clone()), case.values_view(positions));
                    let got = case.fused(&store, range.clone());
                    let what = format!("{} {:?} in pieces of {piece}", isa.name(), case.shape);
                    assert_same_bits(&what, &got, &whole[range.start * width..range.end * width]);
                }
            }
        }
    });
}

#[test]
fn fused_attention_touches_no_key_or_value_that_a_query_does_not_see() {
    on_every_isa(|isa| {
        for case in Case::all() {
            let clean = case.fused(&case.store(), 0..case.shape.queries);
            let width = case.shape.heads * case.shape.value_size;
            for poisoned in [case.start(), case.start() + case.shape.queries / 2] {
                let mut store = case.store();
                let key = vec![f32::NAN; case.shape.size];
                let value = vec![f32::INFINITY; case.shape.value_size];
                for head in 0..case.shape.key_heads {
                    store.set(poisoned, head, &key, &value);
                }
                let got = case.fused(&store, 0..case.shape.queries);
                for query in 0..case.shape.queries {
                    let position = case.start() + query;
                    let sees = poisoned <= position
                        && case.options.window.is_none_or(|window| poisoned + window > position);
                    let row = query * width..(query + 1) * width;
                    if sees {
                        assert!(got[row].iter().all(|x| x.is_nan()), "{} {:?}", isa.name(), case.shape);
                    } else {
                        assert_same_bits(
                            &format!("{} query {query}", isa.name()),
                            &got[row.clone()],
                            &clean[row],
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn a_changed_pattern_mixes_every_key_of_the_context() {
    on_every_isa(|_| {
        let case = Case::new([3, 9, 2, 1, 8, 20], None, None);
        let AttentionShape { queries, context, heads, value_size, .. } = case.shape;
        // All weight on the last key, which the first query does not see.
        let mut pattern = vec![0.0; heads * queries * context];
        pattern.chunks_mut(context).for_each(|row| row[context - 1] = 1.0);
        let mut mixed = vec![0.0; queries * heads * value_size];
        let view = HeadsViewMut::new(&mut mixed, queries, heads, value_size, heads * value_size);
        attention_mixed(&pattern, &case.store(), case.start(), case.options, view);
        for row in mixed.chunks(value_size) {
            assert_eq!(row, &case.values[(context - 1) * value_size..]);
        }
    });
}

#[test]
fn what_no_query_sees_changes_nothing_even_where_it_is_not_finite() {
    on_every_isa(|_| {
        for window in [None, Some(4)] {
            let mut case = Case::new([9, 20, 2, 1, 8, 20], None, window);
            let width = case.shape.value_size * case.shape.key_heads;
            // The last position, which only the last query sees, and one in the middle.
            for (position, value) in [(19, f32::INFINITY), (14, f32::NAN)] {
                case.values[position * width..(position + 1) * width].fill(value);
            }
            let store = case.store();
            let fused = case.fused(&store, 0..9);
            let explicit = case.explicit(&store).2;
            let same = |a: &f32, b: &f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            assert!(fused.iter().zip(&explicit).all(|(a, b)| same(a, b)), "window {window:?}");
            assert!(
                fused[..2 * 2 * 20].iter().all(|value| value.is_finite()),
                "the first queries see neither"
            );
        }
    });
}

#[test]
fn strided_queries_and_outputs_equal_contiguous_ones() {
    let case = Case::new([21, 30, 4, 2, 16, 16], None, None);
    let store = case.store();
    let want = case.fused(&store, 0..21);
    // Heads first: [heads, tokens, size], with a gap.
    let (size, head_stride) = (16, 21 * 16 + 5);
    let mut queries = vec![0.0; 4 * head_stride];
    for token in 0..21 {
        for head in 0..4 {
            queries[head * head_stride + token * size..][..size]
                .copy_from_slice(&case.queries[(token * 4 + head) * size..][..size]);
        }
    }
    let view = HeadsView { data: &queries, tokens: 21, heads: 4, size, token_stride: size, head_stride };
    let mut out = vec![0.0; 4 * head_stride];
    let target = HeadsViewMut { data: &mut out, tokens: 21, heads: 4, size, token_stride: size, head_stride };
    attention_fused(view, &store, case.start(), case.options, target);
    for token in 0..21 {
        for head in 0..4 {
            assert_same_bits(
                "strided",
                &out[head * head_stride + token * size..][..size],
                &want[(token * 4 + head) * size..][..size],
            );
        }
    }
}

#[test]
fn the_store_gives_back_what_was_appended_and_forgets_what_was_truncated() {
    let case = Case::new([1, 77, 2, 2, 10, 35], None, None);
    let mut store = case.store();
    let (mut key, mut value) = (vec![0.0; 10], vec![0.0; 35]);
    let mut check = |store: &KeyValueStore| {
        for position in 0..store.len() {
            for head in 0..2 {
                store.key(position, head, &mut key);
                store.value(position, head, &mut value);
                assert_eq!(key, case.keys[(position * 2 + head) * 10..][..10]);
                assert_eq!(value, case.values[(position * 2 + head) * 35..][..35]);
            }
        }
    };
    check(&store);
    store.truncate(41);
    assert_eq!(store.len(), 41);
    check(&store);
    store.append(case.keys_view(41..77), case.values_view(41..77));
    check(&store);
    assert_same_bits("after truncation", &case.fused(&store, 0..1), &case.fused(&case.store(), 0..1));
}

#[test]
fn a_store_that_takes_anothers_first_positions_is_as_one_that_never_had_others() {
    let case = Case::new([1, 77, 2, 2, 10, 35], None, None);
    let mut used = KeyValueStore::new(2, 10, 35);
    // From none, from more, from fewer, and from one of another shape.
    let other_shape = Case::new([1, 90, 3, 3, 12, 8], None, None).store();
    for (positions, shape) in [(33, false), (77, false), (5, false), (64, true), (76, false), (0, false)] {
        if shape {
            used = other_shape.clone();
        }
        used.copy_first(&case.store(), positions);
        assert_eq!(used.len(), positions);
        used.append(case.keys_view(positions..77), case.values_view(positions..77));
        assert_same_bits("taken over", &case.fused(&used, 0..1), &case.fused(&case.store(), 0..1));
    }
}

/// Blocks of several tiles, which only a long context gets.
#[test]
fn a_long_context_has_the_bits_of_short_pieces() {
    on_every_isa(|isa| {
        let case = Case::new([1100, 1100, 1, 1, 8, 8], None, Some(700));
        let store = case.store();
        let whole = pool::with_threads(1, || case.fused(&store, 0..1100));
        for first in (0..1100).step_by(137) {
            let range = first..(first + 5).min(1100);
            let piece = case.fused(&store, range.clone());
            assert_same_bits(isa.name(), &piece, &whole[range.start * 8..range.end * 8]);
        }
    });
}
