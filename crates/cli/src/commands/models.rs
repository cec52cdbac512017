//! `pellucid models`.

use std::collections::BTreeMap;
use std::io::Write;

use pellucid::spec::{Axis, HookPointSpec, ModuleSpec};
use pellucid::{ModelSpec, Service};

use crate::arguments::Show;
use crate::failure::Failure;
use crate::{models, remote, text};

/// Shows a model's modules.
pub(crate) fn show(show: &Show, out: &mut dyn Write) -> Result<(), Failure> {
    let spec = match remote::given(&show.remote) {
        Some(address) => Service::at(address)?.client().spec(&show.model)?,
        None => models::specification(&show.model)?,
    };
    if show.json { super::write_json(&spec, out) } else { draw(&spec, show.all, out) }
}

fn draw(spec: &ModelSpec, all: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let sizes = &spec.sizes;
    let total: u64 = spec.parameters.iter().map(|parameter| elements(&parameter.shape)).sum();
    let positions = sizes.positions.map_or_else(|| "unbounded".to_owned(), text::grouped);
    writeln!(
        out,
        "{} ({}): {} parameters, {}",
        spec.name,
        spec.family,
        text::grouped(total),
        spec.compute_type
    )?;
    writeln!(
        out,
        "{} layers, hidden {}, {} heads ({} for keys and values) of {}, inner {}, vocabulary {}, positions {positions}\n",
        sizes.layers,
        sizes.hidden,
        sizes.heads,
        sizes.key_value_heads,
        sizes.head_size,
        sizes.inner,
        text::grouped(sizes.vocabulary)
    )?;
    let tree = Tree::new(spec);
    let mut lines = Vec::new();
    tree.lines("", 0, all, &mut lines);
    let width = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
    let class = lines.iter().map(|line| line.class.chars().count()).max().unwrap_or(0);
    for Line { name, class: of, parameters } in &lines {
        let line = format!("{}  {}  {parameters}", text::fit(name, width), text::fit(of, class));
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out, "\nStandard names:")?;
    for alias in spec.aliases.iter().filter(|alias| all || !is_later_layer(&alias.alias)) {
        writeln!(out, "  {} = {}", alias.alias, alias.target)?;
    }
    Ok(())
}

/// Whether a standard name is of another layer than the first.
fn is_later_layer(alias: &str) -> bool {
    alias.strip_prefix("layers.").is_some_and(|rest| rest.split('.').next() != Some("0"))
}

fn elements(shape: &[u64]) -> u64 {
    shape.iter().product()
}

/// One line of the tree: a module, or a hook point of it.
struct Line {
    name: String,
    class: String,
    parameters: String,
}

/// The module tree of a specification.
struct Tree<'a> {
    spec: &'a ModelSpec,
    children: BTreeMap<&'a str, Vec<&'a ModuleSpec>>,
    hook_points: BTreeMap<&'a str, Vec<&'a HookPointSpec>>,
}

impl<'a> Tree<'a> {
    fn new(spec: &'a ModelSpec) -> Tree<'a> {
        let mut children: BTreeMap<&str, Vec<&ModuleSpec>> = BTreeMap::new();
        for module in spec.modules.iter().filter(|module| !module.path.is_empty()) {
            // A path may skip a module that has no hook points of its own: the parent is the nearest that there is.
            let mut parent = module.path.as_str();
            loop {
                parent = parent.rsplit_once('.').map_or("", |(before, _)| before);
                if parent.is_empty() || spec.modules.iter().any(|other| other.path == parent) {
                    break;
                }
            }
            children.entry(parent).or_default().push(module);
        }
        let mut hook_points: BTreeMap<&str, Vec<&HookPointSpec>> = BTreeMap::new();
        for hook in &spec.hook_points {
            hook_points.entry(hook.module.as_str()).or_default().push(hook);
        }
        Tree { spec, children, hook_points }
    }

    fn lines(&self, parent: &str, depth: usize, all: bool, lines: &mut Vec<Line>) {
        let indent = "  ".repeat(depth);
        for hook in self.hook_points.get(parent).into_iter().flatten() {
            let (name, class) = (format!("{indent}.{}", hook.name), shape(hook));
            lines.push(Line { name, class, parameters: String::new() });
        }
        let children = self.children.get(parent).map_or(&[][..], Vec::as_slice);
        let mut place = 0;
        while let Some(module) = children.get(place) {
            let alike = children[place..].iter().take_while(|other| self.is_alike(module, other)).count();
            let folded = if all { 1 } else { alike.max(1) };
            let last = children[place + folded - 1];
            let own =
                |path: &str| path.strip_prefix(parent).unwrap_or(path).trim_start_matches('.').to_owned();
            let mut name = format!("{indent}{}", own(&module.path));
            if folded > 1 {
                name = format!("{name} … {} ({folded} alike)", own(&last.path));
            }
            let count = self.parameters(&module.path);
            let mut parameters = if count > 0 { text::grouped(count) } else { String::new() };
            if folded > 1 {
                parameters.push_str(" each");
            }
            lines.push(Line { name, class: module.class.clone(), parameters });
            self.lines(&module.path, depth + 1, all, lines);
            place += folded;
        }
    }

    /// Whether two modules are numbered and the same but for the number.
    fn is_alike(&self, one: &'a ModuleSpec, other: &'a ModuleSpec) -> bool {
        let numbered = |path: &str| path.rsplit('.').next().is_some_and(|name| name.parse::<u64>().is_ok());
        numbered(&one.path) && numbered(&other.path) && self.shape_of(&one.path) == self.shape_of(&other.path)
    }

    fn shape_of(&self, path: &'a str) -> Subtree<'a> {
        let (modules, hook_points, parameters) =
            (&self.spec.modules, &self.spec.hook_points, &self.spec.parameters);
        Subtree {
            modules: modules
                .iter()
                .filter_map(|module| Some((within(&module.path, path)?, &*module.class)))
                .collect(),
            hook_points: hook_points
                .iter()
                .filter_map(|hook| Some((within(&hook.module, path)?, &*hook.name, &*hook.shape)))
                .collect(),
            parameters: parameters
                .iter()
                .filter_map(|parameter| Some((within(&parameter.name, path)?, &*parameter.shape)))
                .collect(),
        }
    }

    fn parameters(&self, path: &str) -> u64 {
        let inside = self.spec.parameters.iter().filter(|parameter| within(&parameter.name, path).is_some());
        inside.map(|parameter| elements(&parameter.shape)).sum()
    }
}

/// Everything of a module and those inside it, by paths from there.
#[derive(PartialEq)]
struct Subtree<'a> {
    /// Paths and classes.
    modules: Vec<(&'a str, &'a str)>,
    /// Modules' paths, names and shapes.
    hook_points: Vec<(&'a str, &'a str, &'a [Axis])>,
    /// Names and shapes.
    parameters: Vec<(&'a str, &'a [u64])>,
}

/// The rest of a path inside another.
fn within<'a>(path: &'a str, outer: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(outer)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
}

fn shape(hook: &HookPointSpec) -> String {
    let axes: Vec<String> = hook
        .shape
        .iter()
        .map(|axis| match axis {
            Axis::Prompts => "prompts".to_owned(),
            Axis::Length => "length".to_owned(),
            Axis::Context => "context".to_owned(),
            Axis::Size(size) => size.to_string(),
        })
        .collect();
    format!("[{}] {}", axes.join(", "), hook.dtype)
}
