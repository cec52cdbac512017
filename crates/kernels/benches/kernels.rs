//! Times of the hot loops, best of several runs: `cargo bench -p pellucid-kernels [-- FILTER]`.
//!
//! The medians of an interleaved comparison with other libraries are another tool's business; this one shows whether a
//! change of a kernel made it faster.

use std::hint::black_box;
use std::time::Instant;

use pellucid_kernels::attention::attention_fused;
use pellucid_kernels::philox::Stream;
use pellucid_kernels::{
    Activation, AttentionOptions, Block, BlockForm, Epilogue, HeadsView, HeadsViewMut, Isa, KeyValueStore,
    PackedMatrix, Precision, WeightLayout, WeightSource, activation, matmul, matmul_f32, norm, pool, reduce,
};

fn normal(count: usize) -> Vec<f32> {
    let mut numbers = vec![0.0; count];
    Stream { key: 1, stream: 2 }.fill_normal(0, &mut numbers);
    numbers
}

/// The best time of a call, in seconds: at least seven calls, and half a second of them.
fn best(mut body: impl FnMut()) -> f64 {
    body();
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    let mut calls = 0;
    while calls < 7 || begin.elapsed().as_secs_f64() < 0.5 {
        let start = Instant::now();
        body();
        best = best.min(start.elapsed().as_secs_f64());
        calls += 1;
    }
    best
}

/// A weight of four bits a number with an offset, as in Q4_1 and Q4_K; or of eight, as in Q8_0.
fn quantised(k: usize, n: usize, four_bits: bool) -> PackedMatrix {
    let stream = Stream { key: 3, stream: 4 };
    let form = BlockForm { four_bits, offsets: four_bits, two_scales: false };
    PackedMatrix::pack_blocks(k, n, form, |output, index| {
        let words = stream.block((output * k / 32 + index) as u64);
        let bits = if four_bits { 15 } else { 255 };
        let number = |i: usize| (words[i % 4] >> i & bits) as u8 as i8;
        Block {
            numbers: std::array::from_fn(number),
            scales: [(words[0] >> 24) as f32 / 16384.0; 2],
            offset: four_bits.then_some(-0.125),
        }
    })
}

/// Products whose weights stay in blocks, beside those of the same shape that do not.
fn quantised_products(wanted: &dyn Fn(&str) -> bool) {
    for (k, n) in [(576, 1536), (576, 49152), (2048, 8192), (4096, 11008)] {
        for m in [1, 4, 32, 128] {
            let x = normal(m * k);
            let mut out = vec![0.0; m * n];
            let mut time = |what: &str, weights: &dyn Fn() -> PackedMatrix| {
                let name = format!("matmul {what} {m}x{k}x{n}");
                if !wanted(&name) {
                    return;
                }
                let weights = weights();
                let seconds =
                    best(|| matmul(black_box(&x), k, m, &weights, &Epilogue::default(), &mut out, n));
                println!(
                    "{name:36} {:9.3} ms {:7.1} GF/s {:6.1} GB/s of weights",
                    seconds * 1e3,
                    2.0 * (m * k * n) as f64 / seconds / 1e9,
                    weights.size_in_bytes() as f64 / seconds / 1e9,
                );
            };
            let numbers = |precision| {
                PackedMatrix::pack(
                    k,
                    n,
                    &WeightSource::from_f32(&normal(k * n), WeightLayout::OutputMajor),
                    precision,
                )
            };
            time("beside f32", &|| numbers(Precision::F32));
            time("beside bf16", &|| numbers(Precision::Bf16));
            time("quantised 8", &|| quantised(k, n, false));
            time("quantised 4", &|| quantised(k, n, true));
        }
    }
}

fn products(wanted: &dyn Fn(&str) -> bool) {
    for precision in [Precision::F32, Precision::Bf16] {
        for (m, k, n) in [
            (1, 768, 768),
            (1, 768, 3072),
            (1, 768, 50257),
            (4, 768, 50257),
            (8, 768, 3072),
            (16, 768, 3072),
            (32, 768, 3072),
            (32, 3072, 768),
            (32, 768, 50257),
            (128, 768, 768),
            (128, 768, 3072),
            (128, 3072, 768),
            (512, 768, 3072),
            (128, 4096, 4096),
            (1, 4096, 11008),
            (2048, 2048, 2048),
        ] {
            let name = format!("matmul {precision:?} {m}x{k}x{n}");
            if !wanted(&name) {
                continue;
            }
            let weights = normal(k * n);
            let start = Instant::now();
            let packed = PackedMatrix::pack(
                k,
                n,
                &WeightSource::from_f32(&weights, WeightLayout::OutputMajor),
                precision,
            );
            let packing = start.elapsed().as_secs_f64();
            let x = normal(m * k);
            let mut out = vec![0.0; m * n];
            let seconds = best(|| matmul(black_box(&x), k, m, &packed, &Epilogue::default(), &mut out, n));
            let size = if precision == Precision::F32 { 4 } else { 2 };
            println!(
                "{name:36} {:9.3} ms {:7.1} GF/s {:6.1} GB/s of weights; packing {:.1} GB/s of source",
                seconds * 1e3,
                2.0 * (m * k * n) as f64 / seconds / 1e9,
                (k * n * size) as f64 / seconds / 1e9,
                (k * n * 4) as f64 / packing / 1e9,
            );
        }
    }
    for (m, k, n) in [(1, 768, 768), (16, 768, 768), (128, 768, 768), (512, 512, 512)] {
        for layout in [WeightLayout::InputMajor, WeightLayout::OutputMajor] {
            let name = format!("matmul_f32 {m}x{k}x{n} {layout:?}");
            if !wanted(&name) {
                continue;
            }
            let (a, b, mut out) = (normal(m * k), normal(k * n), vec![0.0; m * n]);
            let seconds = best(|| matmul_f32(black_box(&a), &b, layout, m, k, n, &mut out));
            println!(
                "{name:36} {:9.3} ms {:7.1} GF/s",
                seconds * 1e3,
                2.0 * (m * k * n) as f64 / seconds / 1e9
            );
        }
    }
}

fn attentions(wanted: &dyn Fn(&str) -> bool) {
    for (queries, context, heads, key_heads, size) in [
        (1, 128, 12, 12, 64),
        (1, 1024, 12, 12, 64),
        (1, 4096, 12, 12, 64),
        (1, 4096, 32, 8, 128),
        (16, 16, 12, 12, 64),
        (32, 32, 12, 12, 64),
        (128, 128, 12, 12, 64),
        (512, 512, 12, 12, 64),
        (2048, 2048, 12, 12, 64),
    ] {
        let name = format!("attention {queries} of {context}, {heads}/{key_heads} x {size}");
        if !wanted(&name) {
            continue;
        }
        let mut store = KeyValueStore::new(key_heads, size, size);
        let keys = normal(context * key_heads * size);
        let view = HeadsView::new(&keys, context, key_heads, size, key_heads * size);
        store.append(view, view);
        let q = normal(queries * heads * size);
        let mut out = vec![0.0; queries * heads * size];
        let seconds = best(|| {
            attention_fused(
                HeadsView::new(black_box(&q), queries, heads, size, heads * size),
                &store,
                context - queries,
                AttentionOptions::scaled(0.125),
                HeadsViewMut::new(&mut out, queries, heads, size, heads * size),
            );
        });
        let seen: usize = (context - queries + 1..=context).sum();
        println!(
            "{name:36} {:9.3} ms {:7.1} GF/s {:6.1} GB/s of keys and values",
            seconds * 1e3,
            4.0 * (seen * heads * size) as f64 / seconds / 1e9,
            (2 * context * key_heads * size * 4) as f64 / seconds / 1e9,
        );
        if !wanted("append") {
            continue;
        }
        let append = best(|| {
            store.truncate(context - queries);
            store.append(
                HeadsView::new(&keys, queries, key_heads, size, key_heads * size),
                HeadsView::new(&keys, queries, key_heads, size, key_heads * size),
            );
        });
        println!("{:36} {:9.3} ms", format!("  append {queries}"), append * 1e3);
    }
}

fn rows(wanted: &dyn Fn(&str) -> bool) {
    let (count, width) = (512, 3072);
    let x = normal(count * width);
    let mut values = x.clone();
    let mut out = vec![0.0; x.len()];
    let (weight, bias) = (normal(width), normal(width));
    let report = |name: &str, seconds: f64| println!("{name:36} {:9.3} ms", seconds * 1e3);
    for activation in Activation::ALL {
        let name = format!("{activation:?} 512x3072");
        if wanted(&name) {
            values.copy_from_slice(&x);
            report(&name, best(|| activation::apply(activation, black_box(&mut values))));
        }
    }
    if wanted("softmax 512x3072") {
        report("softmax 512x3072", best(|| reduce::softmax(black_box(&mut values), width)));
    }
    if wanted("layer_norm 512x3072") {
        report(
            "layer_norm 512x3072",
            best(|| norm::layer_norm(black_box(&x), 1e-5, &weight, Some(&bias), None, &mut out)),
        );
    }
    if wanted("rms_norm 512x3072") {
        report(
            "rms_norm 512x3072",
            best(|| norm::rms_norm(black_box(&x), 1e-5, &weight, 0.0, None, &mut out)),
        );
    }
    if wanted("layer_norm 1x768") {
        let seconds = best(|| {
            norm::layer_norm(
                black_box(&x[..768]),
                1e-5,
                &weight[..768],
                Some(&bias[..768]),
                None,
                &mut out[..768],
            )
        });
        report("layer_norm 1x768", seconds);
    }
    if wanted("empty parallel loop") {
        report("empty parallel loop", best(|| pool::parallel(2, |index| _ = black_box(index))));
    }
}

fn main() {
    let filters: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    println!("{}, {} threads", Isa::current().name(), pool::threads());
    products(&wanted);
    quantised_products(&wanted);
    attentions(&wanted);
    rows(&wanted);
}
