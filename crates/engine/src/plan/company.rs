//! Those that leave rows together, because they are edited alike, and what they come to from there on.

use std::collections::{BTreeMap, HashMap};

use super::aboard::{Aboard, Extent};
use super::cost::{Costs, Rows, Work};
use super::outlook::Parting;

/// Work and tokens of invokes that have had the same rows, from their parting of that number on: those that are edited alike there
/// go on as one row until they part again.
pub(super) fn parted(together: &[&Aboard], number: usize, lengths: &[usize], costs: &Costs) -> (Work, u64) {
    let mut alike: BTreeMap<(usize, Parting), Vec<&Aboard>> = BTreeMap::new();
    let (mut work, mut tokens) = (Work::default(), 0);
    let mut add = |(more, own): (Work, u64)| {
        work = work.with(more);
        tokens += own;
    };
    for &one in together {
        match one.partings.get(number) {
            Some(parting) if parting.alike.is_some() => {
                alike.entry((one.member, *parting)).or_default().push(one)
            }
            Some(parting) => add(alone(one, parting, lengths, costs)),
            None => {}
        }
    }
    for ((_, parting), company) in alike {
        add(match company.as_slice() {
            [one] => alone(one, &parting, lengths, costs),
            _ => company_of(&company, &parting, number, lengths, costs),
        });
    }
    (work, tokens)
}

/// Of each aboard: with whom it goes on after each of its partings, as the place of the first of them, until it is alone.
pub(crate) fn companies(aboard: &[Aboard]) -> Vec<Vec<usize>> {
    let together = |one: &Aboard| one.partings.iter().take_while(|parting| parting.alike.is_some()).count();
    let mut known: HashMap<(usize, &[Parting]), (usize, usize)> = HashMap::new();
    for (place, one) in aboard.iter().enumerate() {
        for number in 0..together(one) {
            known.entry((one.member, &one.partings[..=number])).or_insert((place, 0)).1 += 1;
        }
    }
    let of = |one: &Aboard| {
        let firsts = (0..together(one)).map_while(|number| {
            let &(first, many) = known.get(&(one.member, &one.partings[..=number]))?;
            (many > 1).then_some(first)
        });
        firsts.collect()
    };
    aboard.iter().map(of).collect()
}

/// One that nobody goes on with: its rows are its own to the end.
fn alone(one: &Aboard, parting: &Parting, lengths: &[usize], costs: &Costs) -> (Work, u64) {
    let rows = one.extent.rows_from(parting.column, lengths).0;
    (costs.of(rows, parting.stage, one.end), rows.tokens)
}

/// Several with one row until they part, which others attend to after that.
fn company_of(
    company: &[&Aboard],
    parting: &Parting,
    number: usize,
    lengths: &[usize],
    costs: &Costs,
) -> (Work, u64) {
    let until_parting = |one: &Aboard| one.partings.get(number + 1).map_or(one.end, |next| next.stage);
    // Of what matters late, it is those that count who are still together then.
    let mut late = company.iter().filter(|one| until_parting(one) > costs.late_from()).map(|one| &one.extent);
    let Some(extent) = late.next().or(company.first().map(|one| &one.extent)) else {
        return (Work::default(), 0);
    };
    let extent = late.fold(extent.clone(), Extent::with);
    let (rows, starts) = extent.rows_from(parting.column, lengths);
    let (mut full, mut until, mut needed) = (parting.stage, 0, starts.clone());
    for one in company {
        full = full.max(until_parting(one));
        if let Some(next) = one.partings.get(number + 1) {
            let (_, own) = one.extent.rows_from(next.column, lengths);
            if own.iter().zip(&starts).any(|(own, start)| own > start) {
                until = until.max(costs.last_attention(one.end));
            }
            needed.iter_mut().zip(own).for_each(|(needed, own)| *needed = (*needed).max(own));
        }
    }
    let left = Rows { late: 0, read: 0, ..Rows::after(needed.into_iter().zip(starts)) };
    let left = costs.of(left, full, until.max(full));
    let (forks, forked) = parted(company, number + 1, lengths, costs);
    // At once they have no more rows than each by itself would: who is left leaves nothing behind but what is attended to.
    let tokens = (rows.tokens + forked).min(rows.tokens * company.len() as u64);
    (costs.of(rows, parting.stage, full).with(left).with(forks), tokens)
}
