//! Which rows a pass begins with, and whose they are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::Rewrites;
use super::aboard::{Aboard, Candidate, Extent};
use super::company::parted;
use super::cost::{Costs, Rows, Work};
use super::prefix::Beginnings;
use crate::sequence::Prefix;

/// Rows of some prompts, and the invokes aboard.
#[derive(Debug)]
pub(crate) struct Trunk {
    pub owner: usize,
    pub prompts: Vec<Vec<u32>>,
    pub aboard: Vec<Aboard>,
    /// Of each prompt: whose keys and values stand before its own rows.
    pub links: Vec<Option<Link>>,
    /// The stage up to which other trunks attend to its rows; 0: none does.
    pub until: usize,
    /// Of each prompt: the positions that other trunks attend to.
    pub needed: Vec<usize>,
    /// The first column that anything aboard reads or writes.
    column: usize,
    /// The stage up to which it is planned to go.
    reach: usize,
    /// The first layers, of which there are keys and values of the positions that it does not compute.
    layers: usize,
    /// Whether others share its rows, so that an invoke aboard that is edited forks.
    parts: bool,
    shares: bool,
    /// What matters to all that have come aboard, and to those of them that are still there after the last attention; none: nobody is.
    extent: Extent,
    late: Option<Extent>,
}

/// Positions that are not computed, because they are there.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub source: Source,
    pub positions: usize,
}

/// Whose keys and values stand before a prompt's own.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Another trunk's.
    Trunk { trunk: usize, prompt: usize },
    /// Those of one that ran before, in its first layers.
    Cache { prefix: Arc<Prefix>, layers: usize },
}

impl Link {
    /// The trunk that is linked to.
    pub fn trunk(&self) -> Option<usize> {
        match self.source {
            Source::Trunk { trunk, .. } => Some(trunk),
            Source::Cache { .. } => None,
        }
    }
}

/// How many positions of a prompt come from elsewhere.
fn positions_of(link: &Option<Link>) -> usize {
    link.as_ref().map_or(0, |link| link.positions)
}

/// What an invoke would add to a pass.
pub(crate) struct Offer {
    /// The trunk that it would join.
    joins: Option<usize>,
    links: Vec<Option<Link>>,
    pub tokens: usize,
    pub work: Work,
}

/// The trunks of a pass that begins at the first stage.
#[derive(Default)]
pub(crate) struct Sharing {
    pub trunks: Vec<Trunk>,
    /// Tokens and work, as far as they are known while invokes come aboard: not less than it comes to.
    pub tokens: usize,
    pub work: Work,
    known: HashMap<u64, Vec<usize>>,
    beginnings: Beginnings,
}

/// What a pass comes to.
#[derive(Debug, Default)]
pub(crate) struct Total {
    pub work: Work,
    /// Operations, prompts and tokens of each program.
    pub shares: BTreeMap<usize, (u64, usize, usize)>,
}

fn key(candidate: &Candidate<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (candidate.owner, &candidate.prompts).hash(&mut hasher);
    hasher.finish()
}

/// The trunks that are linked to.
fn linked(links: &[Option<Link>]) -> BTreeSet<usize> {
    links.iter().flatten().filter_map(Link::trunk).collect()
}

impl Trunk {
    /// Its own rows.
    fn rows(&self) -> Rows {
        let extent = if self.is_own() { Some(&self.extent) } else { self.late.as_ref() };
        self.rows_of(extent)
    }

    /// The same, if late no more mattered than that; none: nothing.
    fn rows_of(&self, late: Option<&Extent>) -> Rows {
        let from: Vec<usize> = self.links.iter().map(positions_of).collect();
        let rows = self.extent.rows(self.prompts.iter().map(Vec::len), &from);
        late.map_or(Rows { late: 0, read: 0, ..rows }, |late| {
            late.rows(self.prompts.iter().map(Vec::len), &from)
        })
    }

    /// What matters late, if that invoke came aboard too.
    fn late_with(&self, one: &Aboard, costs: &Costs) -> Option<Extent> {
        let late = self.late.clone();
        if one.aboard_until() <= costs.late_from() {
            return late;
        }
        Some(late.map_or_else(|| one.extent.clone(), |late| late.with(&one.extent)))
    }

    fn reach_with(&self, one: &Aboard, costs: &Costs) -> usize {
        self.reach.max(one.aboard_until()).max(one.attends_until(costs))
    }

    /// The stage up to which its rows are planned to go.
    pub fn life(&self) -> usize {
        match self.aboard.first() {
            Some(one) if self.is_own() => one.end,
            _ => self.reach.max(self.until),
        }
    }

    /// What others attend to of its rows: up to which stage, and how many of each prompt's first positions.
    pub fn lends(&self, costs: &Costs) -> (usize, Vec<usize>) {
        let (mut until, mut needed) = (self.until, self.needed.clone());
        for one in self.aboard.iter().filter(|one| one.differs().is_some() && !self.is_own()) {
            until = until.max(one.attends_until(costs));
            needed.iter_mut().zip(&one.positions).for_each(|(needed, own)| *needed = (*needed).max(*own));
        }
        (until, needed)
    }

    /// The end of those that leave it with all its rows: they go on attending to what stands before these. 0: nobody does.
    fn forks_after_links(&self) -> usize {
        let after = |one: &&Aboard| {
            let mut both = self.links.iter().zip(&one.positions);
            one.differs().is_some() && both.any(|(link, &own)| link.is_some() && own <= positions_of(link))
        };
        self.aboard.iter().filter(after).map(|one| one.end).max().unwrap_or(0)
    }

    /// Of each prompt: how many of its first positions nothing edits, as long as they are this trunk's; and how many of these
    /// come from elsewhere.
    pub fn unedited(&self) -> Vec<(usize, usize)> {
        let edited = self.aboard.first().filter(|one| self.is_own() && one.differs().is_some());
        let prompts = self.prompts.iter().zip(&self.links).enumerate();
        let prompts = prompts.map(|(number, (tokens, link))| {
            let all = tokens.len();
            let first = edited.and_then(|one| one.positions.get(number)).map_or(all, |&first| first.min(all));
            (first, positions_of(link))
        });
        prompts.collect()
    }

    /// Whether its rows are as those of its tokens alone until somebody edits them.
    pub fn is_shareable(&self) -> bool {
        self.shares
    }

    /// Whether it is one invoke's alone.
    pub fn is_own(&self) -> bool {
        self.aboard.len() == 1 && self.until == 0
    }
}

impl Sharing {
    /// What an invoke would add.
    pub fn offer(&self, candidate: &Candidate<'_>, costs: &Costs, rewrites: Rewrites) -> Offer {
        let outlook = candidate.outlook;
        let joins = (outlook.shares && rewrites.depth).then(|| self.trunk_of(candidate, costs)).flatten();
        if let Some(place) = joins {
            return self.joining(place, candidate, costs);
        }
        let layers = costs.attention_layers(candidate.end);
        let most = if outlook.shares { outlook.first_column } else { 0 };
        let links: Vec<Option<Link>> = candidate
            .prompts
            .iter()
            .zip(candidate.positions(most))
            .enumerate()
            .map(|(number, (tokens, most))| {
                let cached = candidate.cached.get(number).and_then(Option::as_ref);
                let cached = cached.map(|cached| (cached, cached.positions.min(most)));
                let shared = if rewrites.prefixes { most } else { 0 };
                let shared = self.beginnings.longest(candidate.owner, tokens, shared);
                let shared = shared.filter(|shared| self.trunks[shared.0].layers >= layers);
                match (shared, cached) {
                    (shared, Some((cached, positions)))
                        if positions > 0 && shared.is_none_or(|shared| shared.2 <= positions) =>
                    {
                        let (prefix, layers) = (cached.prefix.clone(), cached.layers);
                        Some(Link { source: Source::Cache { prefix, layers }, positions })
                    }
                    (Some((trunk, prompt, positions)), _) if positions > 0 => {
                        Some(Link { source: Source::Trunk { trunk, prompt }, positions })
                    }
                    _ => None,
                }
            })
            .collect();
        let from: Vec<usize> = links.iter().map(positions_of).collect();
        let rows = candidate.rows(&from);
        let (mut tokens, mut work) = (rows.tokens, costs.of(rows, 0, candidate.end));
        for place in linked(&links) {
            let other = &self.trunks[place];
            let reach = other.reach.max(costs.last_attention(candidate.end));
            work = work.with(costs.of(other.rows(), other.reach, reach));
            if let (false, Some(first)) = (other.parts, other.aboard.first()) {
                work = work.with(first.fork(costs));
                tokens += first.forked_tokens();
            }
        }
        Offer { joins: None, links, tokens: tokens as usize, work }
    }

    fn trunk_of(&self, candidate: &Candidate<'_>, costs: &Costs) -> Option<usize> {
        let layers = costs.attention_layers(candidate.end);
        self.known.get(&key(candidate))?.iter().copied().find(|&place| {
            let trunk = &self.trunks[place];
            trunk.owner == candidate.owner
                && trunk.layers >= layers
                && trunk.prompts.len() == candidate.prompts.len()
                && trunk.prompts.iter().zip(&candidate.prompts).all(|(one, other)| one == other)
        })
    }

    fn joining(&self, place: usize, candidate: &Candidate<'_>, costs: &Costs) -> Offer {
        let (trunk, one) = (&self.trunks[place], Aboard::of(candidate));
        let late = trunk.late_with(&one, costs);
        let (before, rows) = (trunk.rows_of(trunk.late.as_ref()), trunk.rows_of(late.as_ref()));
        let reach = trunk.reach_with(&one, costs);
        let mut work = costs.of(rows, trunk.reach, reach).with(one.fork(costs));
        // What has been told of late rows was less, where it reads others than those before.
        let told = costs.of(before, costs.late_from(), trunk.reach);
        work = work.with(costs.of(rows, costs.late_from(), trunk.reach).beyond(told));
        let mut tokens = one.forked_tokens() as usize;
        if let [first] = trunk.aboard.as_slice() {
            // It was taken to walk the whole way with all its rows.
            work = work.with(costs.of(rows, first.end, trunk.reach.max(first.end)));
            if !trunk.parts {
                work = work.with(first.fork(costs));
                tokens += first.forked_tokens() as usize;
            }
        }
        let links = self.limited(trunk, candidate);
        let given_back: usize =
            trunk.links.iter().zip(&links).map(|(old, new)| positions_of(old) - positions_of(new)).sum();
        if given_back > 0 {
            let more = Rows { tokens: given_back as u64, late: 0, read: 0, ..rows };
            work = work.with(costs.of(more, 0, reach));
            tokens += given_back;
        }
        Offer { joins: Some(place), links, tokens, work }
    }

    /// A trunk's links, if that invoke came aboard too: not past what it reads.
    fn limited(&self, trunk: &Trunk, candidate: &Candidate<'_>) -> Vec<Option<Link>> {
        let most = candidate.positions(trunk.column.min(candidate.outlook.first_column));
        let links = trunk.links.iter().zip(most).map(|(link, most)| {
            let link = link.as_ref()?;
            let positions = link.positions.min(most);
            (positions > 0).then(|| Link { positions, source: link.source.clone() })
        });
        links.collect()
    }

    /// An invoke comes aboard, as was offered.
    pub fn accept(&mut self, offer: Offer, candidate: &Candidate<'_>, costs: &Costs) {
        self.tokens += offer.tokens;
        self.work = self.work.with(offer.work);
        let (one, outlook) = (Aboard::of(candidate), candidate.outlook);
        if let Some(place) = offer.joins {
            let trunk = &mut self.trunks[place];
            trunk.reach = trunk.reach_with(&one, costs);
            trunk.parts = true;
            trunk.column = trunk.column.min(outlook.first_column);
            trunk.late = trunk.late_with(&one, costs);
            trunk.extent = trunk.extent.clone().with(&one.extent);
            trunk.links = offer.links;
            trunk.aboard.push(one);
            return;
        }
        for place in linked(&offer.links) {
            let other = &mut self.trunks[place];
            other.reach = other.reach.max(costs.last_attention(candidate.end));
            other.parts = true;
        }
        let place = self.trunks.len();
        let layers = offer.links.iter().flatten().map(|link| match link.source {
            Source::Trunk { trunk, .. } => self.trunks[trunk].layers,
            Source::Cache { layers, .. } => layers,
        });
        let layers = layers.min().unwrap_or(usize::MAX);
        let prompts: Vec<Vec<u32>> = candidate.prompts.iter().map(|tokens| tokens.to_vec()).collect();
        if outlook.shares {
            self.known.entry(key(candidate)).or_default().push(place);
            self.beginnings.add(candidate.owner, place, &prompts);
        }
        let mut trunk = Trunk {
            owner: candidate.owner,
            needed: vec![0; prompts.len()],
            prompts,
            aboard: Vec::new(),
            links: offer.links,
            until: 0,
            column: outlook.first_column,
            reach: 0,
            layers,
            parts: false,
            shares: outlook.shares,
            extent: one.extent.clone(),
            late: None,
        };
        trunk.late = trunk.late_with(&one, costs);
        trunk.reach = trunk.reach_with(&one, costs);
        trunk.aboard.push(one);
        self.trunks.push(trunk);
    }

    /// Everybody is aboard: what others need of each trunk, and what the pass comes to.
    pub fn total(&mut self, costs: &Costs) -> Total {
        for place in (0..self.trunks.len()).rev() {
            // Those that attend to it stand after it, and are known by now.
            let trunk = &self.trunks[place];
            let until = costs.last_attention(trunk.life().max(trunk.forks_after_links()));
            for link in trunk.links.clone().into_iter().flatten() {
                let Source::Trunk { trunk, prompt } = link.source else { continue };
                let other = &mut self.trunks[trunk];
                other.until = other.until.max(until);
                other.needed[prompt] = other.needed[prompt].max(link.positions);
            }
        }
        let mut total = Total::default();
        for trunk in &self.trunks {
            let (work, tokens) = trunk.comes_to(costs);
            total.work = total.work.with(work);
            // Each program bears its part of what several have in common; the rows are the first one's.
            for one in &trunk.aboard {
                let share = total.shares.entry(one.member).or_default();
                share.0 = share.0.saturating_add(work.flops / trunk.aboard.len() as u64);
            }
            if let Some(first) = trunk.aboard.first() {
                let share = total.shares.entry(first.member).or_default();
                share.1 += trunk.prompts.len();
                share.2 += tokens;
            }
        }
        total
    }
}

impl Trunk {
    /// Work and tokens of its rows and of all that fork from it.
    fn comes_to(&self, costs: &Costs) -> (Work, usize) {
        let rows = self.rows();
        if self.is_own() || !self.shares {
            let end = self.aboard.iter().map(|one| one.end).max().unwrap_or(0);
            return (costs.of(rows, 0, end), rows.tokens as usize);
        }
        let full = self.aboard.iter().map(Aboard::aboard_until).max().unwrap_or(0);
        let (until, needed) = self.lends(costs);
        let lengths: Vec<usize> = self.prompts.iter().map(Vec::len).collect();
        let aboard: Vec<&Aboard> = self.aboard.iter().collect();
        let (forks, forked) = parted(&aboard, 0, &lengths, costs);
        let starts = self.links.iter().map(positions_of);
        let left = Rows::after(needed.into_iter().zip(starts));
        let left = costs.of(Rows { late: 0, read: 0, ..left }, full, until.max(full));
        let work = costs.of(rows, 0, full).with(forks).with(left);
        (work, (rows.tokens + forked) as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pellucid_models::{Model, ModelOptions};

    use super::{Candidate, Sharing};
    use crate::plan::{Costs, Outlook, Parting, Rewrites};

    fn costs() -> Costs {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/models/gpt2");
        Costs::new(&Arc::new(Model::open(folder, &ModelOptions::default()).unwrap()))
    }

    fn outlook(differs: Option<usize>, column: usize) -> Outlook {
        let edits = differs.into_iter().map(|stage| Parting { stage, column, alike: None });
        Outlook { shares: true, edits: edits.collect(), first_column: column, ..Outlook::default() }
    }

    /// Invokes that come aboard one after another: program, prompt, outlook.
    fn aboard(invokes: &[(usize, &[u32], Outlook)], rewrites: Rewrites) -> (Sharing, u64, usize) {
        let costs = costs();
        let mut sharing = Sharing::default();
        for (invoke, (member, prompt, outlook)) in invokes.iter().enumerate() {
            let candidate = Candidate {
                member: *member,
                owner: *member,
                invoke,
                prompts: vec![prompt],
                outlook,
                end: 60,
                columns: None,
                unread: 0,
                cached: &[],
            };
            let offer = sharing.offer(&candidate, &costs, rewrites);
            sharing.accept(offer, &candidate, &costs);
        }
        let total = sharing.total(&costs);
        let tokens = total.shares.values().map(|share| share.2).sum();
        assert!(total.work.flops <= sharing.work.flops, "more than was told while they came aboard");
        assert!(tokens <= sharing.tokens);
        (sharing, total.work.flops, tokens)
    }

    const PROMPT: &[u32] = &[1, 2, 3, 4];

    #[test]
    fn only_invokes_of_one_program_with_equal_tokens_are_aboard_one_trunk() {
        let invokes = [
            (0, PROMPT, outlook(None, 0)),
            (0, PROMPT, outlook(Some(20), 3)),
            (0, &[4, 3, 2, 1][..], outlook(None, 0)),
            (1, PROMPT, outlook(None, 0)),
            (0, PROMPT, Outlook { shares: false, ..outlook(None, 0) }),
        ];
        let (sharing, _, tokens) = aboard(&invokes, Rewrites::ALL);
        let found: Vec<Vec<usize>> =
            sharing.trunks.iter().map(|trunk| trunk.aboard.iter().map(|one| one.invoke).collect()).collect();
        assert_eq!(found, [vec![0, 1], vec![2], vec![3], vec![4]]);
        assert_eq!(tokens, 4 + 1 + 4 + 4 + 4);
        assert_eq!(aboard(&invokes, Rewrites::NONE).2, 20);
    }

    #[test]
    fn what_is_shared_is_never_dearer_than_what_is_not() {
        for differs in [None, Some(1), Some(20), Some(59)] {
            for column in 0..4 {
                let invokes = [
                    (0, PROMPT, outlook(differs, column)),
                    (0, PROMPT, outlook(Some(30), 1)),
                    (0, &[1, 2, 3, 9, 9][..], outlook(Some(10), column)),
                ];
                let shared = aboard(&invokes, Rewrites::ALL).1;
                let alone = aboard(&invokes, Rewrites::NONE).1;
                assert!(shared <= alone, "{differs:?}, {column}: {shared} operations, {alone} alone");
            }
        }
    }

    #[test]
    fn an_edited_invoke_whose_rows_another_begins_with_forks_and_that_is_counted() {
        let invokes = [(0, PROMPT, outlook(Some(20), 1)), (0, &[1, 2, 3, 9][..], outlook(None, 3))];
        assert_eq!(aboard(&invokes, Rewrites::ALL).2, 4 + 3 + 1);
    }

    #[test]
    fn a_trunk_that_others_begin_with_is_needed_as_far_as_they_attend() {
        let invokes = [(0, PROMPT, outlook(None, 0)), (0, &[1, 2, 3, 9][..], outlook(None, 3))];
        let (sharing, _, tokens) = aboard(&invokes, Rewrites::ALL);
        assert_eq!(sharing.trunks[1].links[0].as_ref().map(|link| link.positions), Some(3));
        assert_eq!((sharing.trunks[0].needed[0], tokens), (3, 5));
        assert!(sharing.trunks[0].until > 0 && !sharing.trunks[0].is_own() && sharing.trunks[1].is_own());
    }
}
