//! Attention's vector-Jacobian products: against the reference, the reference against finite differences; fused and
//! explicit, on any number of threads, and whatever comes after, bit for bit.

mod common;

use common::{assert_same_bits, normal, on_every_isa};
use pellucid_kernels::attention::{
    attention_backward, attention_mixed_backward, attention_pattern, attention_pattern_backward,
    attention_scores, attention_scores_backward,
};
use pellucid_kernels::reference::{self, AttentionShape};
use pellucid_kernels::{AttentionOptions, HeadsView, HeadsViewMut, KeyValueStore, pool};

#[derive(Clone, Debug)]
struct Case {
    shape: AttentionShape,
    options: AttentionOptions,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    of_mixed: Vec<f32>,
}

/// The cotangents of queries, keys and values.
#[derive(Clone)]
struct Cotangents {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// And of what lies between.
struct Between {
    pattern: Vec<f32>,
    scores: Vec<f32>,
}

fn view(data: &[f32], tokens: usize, heads: usize, size: usize) -> HeadsView<'_> {
    HeadsView::new(data, tokens, heads, size, heads * size)
}

fn view_mut(data: &mut [f32], tokens: usize, heads: usize, size: usize) -> HeadsViewMut<'_> {
    HeadsViewMut::new(data, tokens, heads, size, heads * size)
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
            of_mixed: normal(4, queries * heads * value_size),
        }
    }

    fn all() -> Vec<Self> {
        vec![
            Self::new([1, 1, 1, 1, 4, 4], None, None),
            Self::new([7, 7, 2, 2, 16, 16], None, None),
            Self::new([130, 130, 2, 1, 64, 64], None, None),
            Self::new([33, 70, 4, 2, 24, 40], Some(3.0), None),
            Self::new([70, 70, 3, 3, 32, 32], None, Some(5)),
            Self::new([150, 231, 6, 2, 20, 33], Some(2.0), Some(64)),
            Self::new([1, 200, 8, 1, 64, 80], None, None),
            Self::new([3, 90, 30, 1, 16, 16], None, Some(1)),
            Self::new([220, 220, 1, 1, 8, 8], None, Some(100)),
        ]
    }

    fn start(&self) -> usize {
        self.shape.context - self.shape.queries
    }

    fn store(&self) -> KeyValueStore {
        let AttentionShape { context, key_heads, size, value_size, .. } = self.shape;
        let mut store = KeyValueStore::new(key_heads, size, value_size);
        store.append(
            view(&self.keys, context, key_heads, size),
            view(&self.values, context, key_heads, value_size),
        );
        store
    }

    fn queries(&self) -> HeadsView<'_> {
        view(&self.queries, self.shape.queries, self.shape.heads, self.shape.size)
    }

    fn of_mixed(&self) -> HeadsView<'_> {
        view(&self.of_mixed, self.shape.queries, self.shape.heads, self.shape.value_size)
    }

    fn nothing(&self) -> Cotangents {
        let of = |values: &Vec<f32>| vec![f32::NAN; values.len()];
        Cotangents { queries: of(&self.queries), keys: of(&self.keys), values: of(&self.values) }
    }

    fn fused(&self) -> Cotangents {
        let AttentionShape { queries, context, heads, key_heads, size, value_size } = self.shape;
        let mut out = self.nothing();
        attention_backward(
            self.queries(),
            &self.store(),
            self.start(),
            self.options,
            self.of_mixed(),
            view_mut(&mut out.queries, queries, heads, size),
            view_mut(&mut out.keys, context, key_heads, size),
            view_mut(&mut out.values, context, key_heads, value_size),
        );
        out
    }

    fn explicit(&self) -> (Cotangents, Between) {
        let AttentionShape { queries, context, heads, key_heads, size, value_size } = self.shape;
        let store = self.store();
        let mut pattern = vec![f32::NAN; heads * queries * context];
        attention_scores(self.queries(), &store, self.start(), self.options, &mut pattern);
        attention_pattern(&mut pattern, context);
        let mut out = self.nothing();
        let mut of_pattern = vec![f32::NAN; pattern.len()];
        attention_mixed_backward(
            &pattern,
            &store,
            self.start(),
            self.of_mixed(),
            &mut of_pattern,
            view_mut(&mut out.values, context, key_heads, value_size),
        );
        let mut of_scores = of_pattern.clone();
        attention_pattern_backward(&pattern, context, &mut of_scores);
        attention_scores_backward(
            self.queries(),
            &store,
            self.start(),
            self.options,
            &of_scores,
            view_mut(&mut out.queries, queries, heads, size),
            view_mut(&mut out.keys, context, key_heads, size),
        );
        (out, Between { pattern: of_pattern, scores: of_scores })
    }
}

#[track_caller]
fn assert_close(what: &str, got: &[f32], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    let size = want.iter().fold(1.0_f64, |size, x| size.max(x.abs()));
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() <= bound * size, "{what}: element {index}: {got} for {want}");
    }
}

#[track_caller]
fn assert_same(what: &str, left: &Cotangents, right: &Cotangents) {
    assert_same_bits(&format!("{what}, queries"), &left.queries, &right.queries);
    assert_same_bits(&format!("{what}, keys"), &left.keys, &right.keys);
    assert_same_bits(&format!("{what}, values"), &left.values, &right.values);
}

#[test]
fn all_cotangents_agree_with_the_reference() {
    on_every_isa(|isa| {
        for case in Case::all() {
            let want = reference::attention_backward(
                case.shape,
                &case.queries,
                &case.keys,
                &case.values,
                case.options,
                &case.of_mixed,
            );
            let (got, between) = case.explicit();
            let what = |part: &str| format!("{} {part} {:?}", isa.name(), case.shape);
            assert_close(&what("pattern"), &between.pattern, &want.pattern, 4e-6);
            assert_close(&what("scores"), &between.scores, &want.scores, 1e-5);
            assert_close(&what("queries"), &got.queries, &want.queries, 1e-5);
            assert_close(&what("keys"), &got.keys, &want.keys, 1e-5);
            assert_close(&what("values"), &got.values, &want.values, 1e-5);
        }
    });
}

#[test]
fn the_reference_agrees_with_differences() {
    for (sizes, cap, window) in [([3, 5, 2, 1, 4, 3], None, None), ([4, 4, 2, 2, 3, 5], Some(2.0), Some(2))] {
        let case = Case::new(sizes, cap, window);
        let value = |queries: &[f32], keys: &[f32], values: &[f32]| -> f64 {
            let mixed = reference::attention(case.shape, queries, keys, values, case.options).mixed;
            mixed.iter().zip(&case.of_mixed).map(|(mixed, c)| mixed * f64::from(*c)).sum()
        };
        let want = reference::attention_backward(
            case.shape,
            &case.queries,
            &case.keys,
            &case.values,
            case.options,
            &case.of_mixed,
        );
        let check = |what: &str, x: &[f32], got: &[f64], f: &dyn Fn(&[f32]) -> f64| {
            for index in 0..x.len() {
                let (mut above, mut below) = (x.to_vec(), x.to_vec());
                above[index] += 1e-3;
                below[index] -= 1e-3;
                let width = f64::from(above[index]) - f64::from(below[index]);
                let slope = (f(&above) - f(&below)) / width;
                assert!((slope - got[index]).abs() < 1e-5, "{what} {index}: {} for {slope}", got[index]);
            }
        };
        check("queries", &case.queries, &want.queries, &|x| value(x, &case.keys, &case.values));
        check("keys", &case.keys, &want.keys, &|x| value(&case.queries, x, &case.values));
        check("values", &case.values, &want.values, &|x| value(&case.queries, &case.keys, x));
    }
}

#[test]
fn the_fused_way_has_the_bits_of_the_explicit_steps_on_any_number_of_threads() {
    on_every_isa(|isa| {
        for case in Case::all() {
            let (explicit, _) = case.explicit();
            for threads in [1, 2, 3, 7] {
                let what = format!("{} {:?} on {threads} threads", isa.name(), case.shape);
                let fused = pool::with_threads(threads, || case.fused());
                assert_same(&what, &fused, &explicit);
                let (again, _) = pool::with_threads(threads, || case.explicit());
                assert_same(&what, &again, &explicit);
            }
        }
    });
}

/// The cotangents of a query depend on that query alone; those of keys add up the queries' in order.
#[test]
fn a_query_without_cotangent_changes_no_bit_of_the_others() {
    on_every_isa(|isa| {
        for case in Case::all() {
            let width = case.shape.heads * case.shape.value_size;
            let kept = case.shape.queries / 2;
            let mut quiet = case.clone();
            quiet.of_mixed[(kept + 1) * width..].fill(0.0);
            // The same queries without those that come after.
            let mut short = case.clone();
            short.shape.queries = kept + 1;
            short.shape.context = case.start() + kept + 1;
            short.queries.truncate((kept + 1) * case.shape.heads * case.shape.size);
            short.keys.truncate(short.shape.context * case.shape.key_heads * case.shape.size);
            short.values.truncate(short.shape.context * case.shape.key_heads * case.shape.value_size);
            short.of_mixed.truncate((kept + 1) * width);
            let (quiet, short) = (quiet.fused(), short.fused());
            let what = format!("{} {:?}", isa.name(), case.shape);
            assert_same_bits(&what, &quiet.queries[..short.queries.len()], &short.queries);
            assert_same_bits(&what, &quiet.keys[..short.keys.len()], &short.keys);
            assert_same_bits(&what, &quiet.values[..short.values.len()], &short.values);
            assert!(quiet.queries[short.queries.len()..].iter().all(|x| *x == 0.0), "{what}");
            assert!(quiet.keys[short.keys.len()..].iter().all(|x| *x == 0.0), "{what}");
        }
    });
}

#[test]
fn a_changed_pattern_gives_cotangents_at_every_key_of_the_context() {
    on_every_isa(|_| {
        let case = Case::new([3, 9, 2, 1, 8, 20], None, None);
        let AttentionShape { queries, context, heads, value_size, .. } = case.shape;
        // All weight on the last key, which the first query does not see.
        let mut pattern = vec![0.0; heads * queries * context];
        pattern.chunks_mut(context).for_each(|row| row[context - 1] = 1.0);
        let (mut of_pattern, mut of_values) = (vec![f32::NAN; pattern.len()], case.nothing().values);
        attention_mixed_backward(
            &pattern,
            &case.store(),
            case.start(),
            case.of_mixed(),
            &mut of_pattern,
            view_mut(&mut of_values, context, 1, value_size),
        );
        let (others, last) = of_values.split_at((context - 1) * value_size);
        assert!(others.iter().all(|x| *x == 0.0));
        for (i, got) in last.iter().enumerate() {
            let want: f32 = case.of_mixed.iter().skip(i).step_by(value_size).sum();
            assert!((got - want).abs() < 1e-5, "{got} for {want}");
        }
        for (row, of_pattern) in of_pattern.chunks(context).enumerate() {
            let (head, query) = (row / queries, row % queries);
            for (key, got) in of_pattern.iter().enumerate() {
                let cotangent = &case.of_mixed[(query * heads + head) * value_size..][..value_size];
                let value = &case.values[key * value_size..][..value_size];
                let want: f32 = cotangent.iter().zip(value).map(|(a, b)| a * b).sum();
                assert!((got - want).abs() < 1e-4, "{got} for {want}");
            }
        }
    });
}

#[test]
fn strided_cotangents_equal_contiguous_ones() {
    let case = Case::new([21, 21, 4, 2, 16, 16], None, None);
    let want = case.fused();
    // Queries, keys and values side by side in each token's row, as a fused projection has them.
    let (width, stride) = (4 * 16, 4 * 16 + 2 * 16 + 2 * 16);
    let mut all = vec![0.0; 21 * stride];
    let mut parts = [vec![0.0; 21 * stride], vec![0.0; 21 * stride], vec![0.0; 21 * stride]];
    let [queries, keys, values] = &mut parts;
    attention_backward(
        case.queries(),
        &case.store(),
        0,
        case.options,
        case.of_mixed(),
        HeadsViewMut::new(queries, 21, 4, 16, stride),
        HeadsViewMut::new(&mut keys[width..], 21, 2, 16, stride),
        HeadsViewMut::new(&mut values[width + 32..], 21, 2, 16, stride),
    );
    for part in &parts {
        all.iter_mut().zip(part).for_each(|(all, part)| *all += part);
    }
    for token in 0..21 {
        let row = &all[token * stride..][..stride];
        assert_same_bits("queries", &row[..width], &want.queries[token * width..][..width]);
        assert_same_bits("keys", &row[width..][..32], &want.keys[token * 32..][..32]);
        assert_same_bits("values", &row[width + 32..], &want.values[token * 32..][..32]);
    }
}
