//! One invoke on its way through the model.

use std::ops::Range;
use std::sync::Arc;

use pellucid_graph::{Generation, NodeId, Prompts, Trace};

use super::touches::{Asked, Touch};
use super::waiting::SetWeight;
use crate::pass::{Parked, Sequence};
use crate::plan::{Cached, Candidate, Outlook, Parting, Rows};
use crate::reverse::{Tape, Trail};
use crate::view::{Member, Rectangle};
use crate::weights::WeightSet;

/// One invoke on its way.
#[derive(Default)]
pub(crate) struct Group {
    /// The trace that it is an invoke of, and its number there.
    pub trace: Option<NodeId>,
    pub invoke: usize,
    /// Its place among its program's that are on their way.
    pub seat: usize,
    /// The name that its author gave it.
    pub label: Arc<str>,
    /// What keys the noise of its sampling: the trace's label, and its own coordinates.
    pub noise: (String, Vec<u64>),
    pub generation: Option<Generation>,
    pub stop_tokens: Vec<u32>,
    pub prompts: Vec<Prompt>,
    /// The longest prompt's tokens.
    pub width: usize,
    pub step: u64,
    /// The last step that matters.
    pub last_step: u64,
    /// The trace's `steps` bodies, in program order.
    pub steps: Arc<[NodeId]>,
    /// What the trace asks of it.
    pub asked: Asked,
    /// The stages that some way back goes through; none: nothing is kept for one.
    pub tracked: Option<Arc<[bool]>>,
    /// What was kept.
    pub tape: Tape,
    /// The getters and setters of the current step, in the order in which they come.
    pub touches: Vec<Touch>,
    pub next_touch: usize,
    /// Where this step ends for it: the stage after the last that matters.
    pub end: usize,
    pub wants_token: bool,
    /// The columns of its rectangle that matter from the narrowing stage on; none: all.
    pub columns: Option<Vec<usize>>,
    /// The columns of the vocabulary that are read of its logits, if not all.
    pub vocabulary: Option<Arc<[usize]>>,
    /// How many columns of the vocabulary are not computed therefore.
    pub unread: u64,
    /// What is known of this step's rows before it walks.
    pub outlook: Outlook,
    /// Of each prompt: the beginning that is in its program's cache; empty: of none.
    pub cached: Vec<Option<Cached>>,
    /// The stage before which it began with what was in the cache; none: it begins with its tokens.
    pub resumed: Option<usize>,
    /// The column with which its rows begin since they left those of others; 0: they are whole.
    pub forked: usize,
    /// How often it has left such rows at its step.
    pub partings: usize,
    pub place: Place,
    /// The weights that its program has set for it.
    pub weights: Option<Arc<WeightSet>>,
    /// Which those are: only invokes with the same ones can share a pass.
    pub weights_key: Vec<SetWeight>,
}

pub(crate) struct Prompt {
    pub tokens: Vec<u32>,
    pub made: Vec<u32>,
    pub finished: bool,
    pub sequence: Option<Sequence>,
}

#[derive(Default)]
pub(crate) enum Place {
    /// Before its first step, until its weights are there, and it is known whether it runs at all.
    Waiting,
    /// After a step's token, until it is known which prompts the program stops.
    Deciding,
    /// Before the first stage of its step.
    Start,
    /// At a hook stage, before the touch that comes next.
    Parked(Vec<Parked>),
    /// Before a stage at which its pass was cut, to let others ride.
    Cut(Vec<Parked>),
    /// In the current pass.
    Riding,
    #[default]
    Done,
}

impl Place {
    /// Bytes of the rows with which it waits.
    pub fn bytes(&self) -> u64 {
        match self {
            Place::Parked(parked) | Place::Cut(parked) => parked.iter().map(Parked::bytes).sum(),
            _ => 0,
        }
    }
}

impl Group {
    /// An invoke of a trace at its first step.
    pub fn new(
        (id, name, trace): (NodeId, &str, &Trace),
        (invoke, seat): (usize, usize),
        steps: Arc<[NodeId]>,
        asked: Asked,
        end_tokens: &[u32],
    ) -> Group {
        let tokens: &[Vec<u32>] = match trace.invokes.get(invoke).map(|invoke| &invoke.prompts) {
            Some(Prompts::Tokens(tokens)) => tokens,
            _ => &[],
        };
        let coordinates = trace.invokes.get(invoke).map(|own| own.noise_coordinates(invoke));
        let coordinates = coordinates.unwrap_or_default();
        let prompts = tokens.iter().map(|tokens| Prompt {
            tokens: tokens.clone(),
            made: Vec::new(),
            finished: false,
            sequence: Some(Sequence::new(tokens.iter().map(|&token| i64::from(token)).collect())),
        });
        let stop_tokens = trace.generation.as_ref().and_then(|generation| generation.stop_tokens.clone());
        Group {
            trace: Some(id),
            invoke,
            seat,
            label: trace.invokes.get(invoke).map_or("", |own| own.label()).into(),
            noise: (name.to_owned(), coordinates),
            generation: trace.generation.clone(),
            stop_tokens: stop_tokens.unwrap_or_else(|| end_tokens.to_vec()),
            prompts: prompts.collect(),
            width: tokens.iter().map(Vec::len).max().unwrap_or(0),
            steps,
            asked,
            place: Place::Waiting,
            ..Group::default()
        }
    }

    /// How many steps its trace has.
    pub fn total_steps(&self) -> u64 {
        self.generation.as_ref().map_or(1, |generation| generation.max_new_tokens)
    }

    /// Tokens that it brings into a pass at its step.
    pub fn tokens(&self) -> usize {
        self.rows().tokens as usize
    }

    /// The rows that it brings into a pass at its step.
    pub fn rows(&self) -> Rows {
        let going = self.prompts.iter().filter(|prompt| !prompt.finished).map(|prompt| {
            let length = prompt.tokens.len();
            if self.step == 0 {
                (length, self.position(length))
            } else {
                let context = length + self.step as usize;
                (context, context - 1)
            }
        });
        let rows = Rows::after(going);
        let read = self.columns.as_ref().map(|columns| (columns.len() * self.prompts.len()) as u64);
        let late = self.prompts.iter().map(|prompt| {
            let length = prompt.tokens.len();
            let first = self.outlook.late.saturating_sub(self.width - length).max(self.position(length));
            length.saturating_sub(first) as u64
        });
        let late = if self.step == 0 { late.sum() } else { rows.tokens };
        let read = read.unwrap_or(rows.tokens).min(rows.tokens);
        let late = if self.step == 0 && self.outlook.late_is_read { read.min(late) } else { late };
        Rows { late, read, unread: self.unread, ..rows }
    }

    /// The rows that it would bring by itself, from its first token on.
    pub fn whole_rows(&self) -> Rows {
        let whole = self.prompts.iter().map(|prompt| (prompt.tokens.len(), 0));
        if self.step == 0 { Rows::after(whole) } else { self.rows() }
    }

    /// The rows that a way back goes through: all, but for those that are not computed from the narrowing stage on.
    pub fn back_rows(&self) -> Rows {
        let whole = self.whole_rows();
        let read = self.columns.as_ref().map(|columns| (columns.len() * self.prompts.len()) as u64);
        Rows { read: read.unwrap_or(whole.read).min(whole.read), ..whole }
    }

    /// The position with which the rows begin of a prompt of so many tokens.
    fn position(&self, length: usize) -> usize {
        self.forked.saturating_sub(self.width - length)
    }

    /// Where it leaves the rows next that it has in common with others; none: nowhere.
    pub fn next_parting(&self) -> Option<Parting> {
        self.outlook.edits.get(self.partings).copied()
    }

    /// The positions with which its prompts' rows begin when they leave those of others.
    pub fn fork_positions(&self) -> Vec<usize> {
        self.fork_positions_at(self.next_parting().map_or(0, |parting| parting.column)).collect()
    }

    /// It leaves rows that it had in common with others: those that it goes on with begin with that parting's column.
    pub fn part(&mut self) {
        self.forked = self.next_parting().map_or(0, |parting| parting.column);
        self.partings += 1;
    }

    /// The positions of its prompts that stand at a column.
    pub fn fork_positions_at(&self, column: usize) -> impl Iterator<Item = usize> + '_ {
        let padding = self.prompts.iter().map(|prompt| self.width - prompt.tokens.len());
        padding.map(move |padding| column.saturating_sub(padding))
    }

    /// It, as it could begin in a pass of its program's.
    pub fn candidate(&self, member: usize, owner: usize) -> Candidate<'_> {
        Candidate {
            member,
            owner,
            invoke: self.seat,
            prompts: self.prompts.iter().map(|prompt| prompt.tokens.as_slice()).collect(),
            outlook: &self.outlook,
            end: self.end,
            columns: self.columns.as_deref(),
            unread: self.unread,
            cached: &self.cached,
        }
    }

    /// Whether after the last attention fewer columns are computed than all from the first on that is read.
    pub fn reads_fewer_late(&self, late_from: usize) -> bool {
        let here = self.step == 0 && self.end > late_from && self.outlook.late_is_read;
        let columns = self.columns.as_ref().filter(|_| here);
        columns.is_some_and(|columns| columns.len() < self.width - self.outlook.late.min(self.width))
    }

    /// Which of the rows of a prompt matter from the narrowing stage on, if these begin with that position: none, all.
    pub fn narrow(&self, length: usize, position: usize) -> Option<Vec<usize>> {
        let skipped = self.width - length + position;
        let columns = self.columns.as_ref()?.iter();
        Some(columns.filter(|&&column| column >= skipped).map(|column| column - skipped).collect())
    }

    /// What there is of it for a way back.
    pub fn trail(&self) -> Trail<'_> {
        Trail {
            lengths: self.prompts.iter().map(|prompt| prompt.tokens.len()).collect(),
            columns: self.columns.as_deref(),
            tape: &self.tape,
            weights: self.weights.as_ref(),
        }
    }

    /// Whether its keys and values are needed at a next step.
    pub fn keeps_caches(&self) -> bool {
        self.last_step > 0
    }

    /// Whether a way back goes through it.
    pub fn goes_back(&self) -> bool {
        self.tracked.is_some() || !self.asked.gradients.is_empty()
    }

    /// Whether a way back goes through a stage.
    pub fn tracks(&self, stage: usize) -> bool {
        self.tracked.as_ref().is_some_and(|tracked| tracked.get(stage).copied().unwrap_or(false))
    }

    /// Of the stages that ways back go through: the first, the one after the last, and how many; none: there are none.
    pub fn way_back(&self) -> Option<(usize, usize, usize)> {
        let tracked = self.tracked.as_ref()?;
        let through = || tracked.iter().enumerate().filter(|stage| *stage.1).map(|stage| stage.0);
        Some((through().next()?, through().next_back()? + 1, through().count()))
    }

    /// The group's rectangle, when its sequences are those of the pass.
    pub fn rectangle(&self, mut sequences: Range<usize>, narrowed: bool) -> Rectangle {
        let members = self.prompts.iter().map(|prompt| Member {
            sequence: if prompt.finished { None } else { sequences.next() },
            padding: if self.step == 0 { self.width - prompt.tokens.len() } else { 0 },
        });
        Rectangle {
            members: members.collect(),
            length: if self.step == 0 { self.width } else { 1 },
            context: self.width + self.step as usize,
            columns: if narrowed { self.columns.clone() } else { None },
            vocabulary: None,
        }
    }
}
