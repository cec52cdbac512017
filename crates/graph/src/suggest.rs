//! "Did you mean …?"

/// Names longer than this are not compared: what is that wrong was not a slip of the finger.
const LONGEST: usize = 96;

/// The candidate that `name` is most probably a misspelling of: the nearest by edit distance, if at most a third of its
/// characters differ. The first of equals.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    if length > LONGEST {
        return None;
    }
    let mut best = None;
    let mut least = length / 3 + 1;
    for candidate in candidates {
        // The distance is at least the difference of the lengths: most candidates are passed over without comparing.
        if candidate.len() > 4 * LONGEST || candidate.chars().count().abs_diff(length) >= least {
            continue;
        }
        let distance = strsim::osa_distance(name, candidate);
        if distance < least {
            (best, least) = (Some(candidate), distance);
        }
    }
    best
}

/// The hint "did you mean `…`?" for the closest candidate.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(name, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let names = ["softmax", "log_softmax", "topk", "transpose"];
        assert_eq!(closest("sofmax", names), Some("softmax"));
        assert_eq!(closest("tpok", names), Some("topk"));
        assert_eq!(closest("convolution", names), None);
        // Every short name is near every other.
        assert_eq!(closest("x", ["y", ""]), None);
    }
}
