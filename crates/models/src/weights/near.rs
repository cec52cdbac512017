//! Names near a mistyped one.

/// The `count` names nearest to `name` by edit distance, nearest first, those left out that are as good as unrelated.
pub(crate) fn near_names<'n>(name: &str, names: impl Iterator<Item = &'n str>, count: usize) -> Vec<&'n str> {
    let most = (name.len() / 3).max(2);
    let mut near: Vec<(usize, &str)> =
        names.map(|other| (distance(name, other), other)).filter(|(distance, _)| *distance <= most).collect();
    near.sort();
    near.into_iter().take(count).map(|(_, name)| name).collect()
}

/// Levenshtein's distance in bytes; a prefix left out or added (`transformer.`) counts as two.
fn distance(left: &str, right: &str) -> usize {
    if left.ends_with(right) || right.ends_with(left) {
        return 2.min(left.len().abs_diff(right.len()));
    }
    let right = right.as_bytes();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::near_names;

    #[test]
    fn near_names_are_near() {
        let names = ["transformer.wte.weight", "transformer.wpe.weight", "lm_head.weight"];
        let near = |name| near_names(name, names.into_iter(), 2);
        assert_eq!(near("wte.weight"), ["transformer.wte.weight"]);
        assert_eq!(near("transformer.wtf.weight"), ["transformer.wte.weight", "transformer.wpe.weight"]);
        assert!(near("something.else.entirely").is_empty());
    }
}
