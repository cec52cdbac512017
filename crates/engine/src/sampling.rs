//! Choosing the next token.

use pellucid_graph::Sampling;

use crate::operations::Noise;

/// The next token of one prompt from its logits `[tokens]`, after every setter. Ties: the lowest id. A logit of −∞ or NaN is
/// never drawn; where there is no other, the token is that of a temperature of 0, the lowest id of the greatest.
///
/// `noise` is keyed by the program's seed, the trace, the invoke, the prompt and the step: the token depends on nothing
/// else in the pass.
pub(crate) fn choose(logits: &[f32], present: &[u32], sampling: &Sampling, noise: &Noise) -> u32 {
    let mut scores: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    if sampling.repetition_penalty != 1.0 {
        let mut seen = vec![false; scores.len()];
        for &token in present {
            let Some(seen) = seen.get_mut(token as usize) else { continue };
            if !std::mem::replace(seen, true) {
                let score = &mut scores[token as usize];
                *score = if *score > 0.0 {
                    *score / sampling.repetition_penalty
                } else {
                    *score * sampling.repetition_penalty
                };
            }
        }
    }
    if sampling.temperature == 0.0 {
        return best(&scores);
    }
    // Most probable first; equals by id.
    let can_be_drawn = |token: &usize| scores[*token] > f64::NEG_INFINITY;
    let mut order: Vec<usize> = (0..scores.len()).filter(can_be_drawn).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    if let Some(top) = sampling.top_k {
        order.truncate(usize::try_from(top).unwrap_or(usize::MAX).max(1));
    }
    let Some(&first) = order.first() else { return best(&scores) };
    let greatest = scores[first];
    let weight = |&token: &usize| match scores[token] == greatest {
        // Also of +∞, which is as far from itself as it likes.
        true => 1.0,
        false => ((scores[token] - greatest) / sampling.temperature).exp(),
    };
    let mut weights: Vec<f64> = order.iter().map(weight).collect();
    if let Some(top) = sampling.top_p {
        let total: f64 = weights.iter().sum();
        let mut reached = 0.0;
        let kept = weights.iter().position(|weight| {
            reached += weight / total;
            reached >= top
        });
        weights.truncate(kept.map_or(weights.len(), |last| last + 1));
    }
    let total: f64 = weights.iter().sum();
    let mut left = noise.uniform() * total;
    for (&token, weight) in order.iter().zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return token as u32;
        }
    }
    // The sum was rounded: the last that could be drawn.
    let last = weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0);
    order[last] as u32
}

fn best(scores: &[f64]) -> u32 {
    let mut best = 0;
    for (token, score) in scores.iter().enumerate() {
        if *score > scores[best] || (scores[best].is_nan() && !score.is_nan()) {
            best = token;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(step: u64) -> Noise {
        Noise { seed: 7, label: "trace".into(), coordinates: vec![0, 0, step] }
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals() {
        assert_eq!(choose(&[1.0, 3.0, 3.0], &[], &Sampling::default(), &noise(0)), 1);
    }

    #[test]
    fn a_penalty_lowers_what_is_present_once() {
        let sampling = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        assert_eq!(choose(&[4.0, 3.0], &[0, 0, 0], &sampling, &noise(0)), 1);
        assert_eq!(choose(&[4.0, 1.5], &[0, 0, 0], &sampling, &noise(0)), 0);
        assert_eq!(choose(&[-1.0, -1.5], &[0], &sampling, &noise(0)), 1);
    }

    #[test]
    fn what_is_impossible_is_not_drawn() {
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        let none = [f32::NEG_INFINITY; 4];
        let some = [f32::NEG_INFINITY, f32::NAN, -1e30, f32::NEG_INFINITY];
        let sure = [0.0, f32::INFINITY, 3.0, f32::INFINITY];
        for step in 0..50 {
            assert_eq!(choose(&none, &[], &sampling, &noise(step)), 0);
            assert_eq!(choose(&[f32::NAN; 4], &[], &sampling, &noise(step)), 0);
            assert_eq!(choose(&some, &[], &sampling, &noise(step)), 2);
        }
        let drawn: Vec<u32> = (0..50).map(|step| choose(&sure, &[], &sampling, &noise(step))).collect();
        assert!(
            drawn.contains(&1) && drawn.contains(&3) && !drawn.contains(&0) && !drawn.contains(&2),
            "{drawn:?}"
        );
    }

    #[test]
    fn sampling_follows_the_probabilities_and_its_bounds() {
        let logits = [0.0, 2.0f32.ln(), 1.0f32.ln(), f32::NEG_INFINITY];
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        let mut counts = [0usize; 4];
        for step in 0..4000 {
            counts[choose(&logits, &[], &sampling, &noise(step)) as usize] += 1;
        }
        assert_eq!(counts[3], 0);
        assert!((counts[1] as f64 / 4000.0 - 0.5).abs() < 0.05, "{counts:?}");
        let top = Sampling { temperature: 1.0, top_k: Some(1), ..Sampling::default() };
        assert!((0..100).all(|step| choose(&logits, &[], &top, &noise(step)) == 1));
        let nucleus = Sampling { temperature: 1.0, top_p: Some(0.4), ..Sampling::default() };
        assert!((0..100).all(|step| choose(&logits, &[], &nucleus, &noise(step)) == 1));
        // The token with which the sum passes the bound is kept, and none after it.
        let wider = Sampling { temperature: 1.0, top_p: Some(0.6), ..Sampling::default() };
        let chosen: Vec<u32> = (0..100).map(|step| choose(&logits, &[], &wider, &noise(step))).collect();
        assert!(chosen.contains(&0) && chosen.contains(&1) && !chosen.contains(&2), "{chosen:?}");
    }
}
