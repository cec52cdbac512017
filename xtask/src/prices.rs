//! `cargo xtask prices`: whether operations take what they are priced at.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::records::Record;
use crate::shell::{Outcome, cargo, output};

/// What a price may be off by, either way.
const NEAR: f64 = 4.0;
/// A price, or a time, of less than so many milliseconds tells of nothing but the clock.
const NOTHING: f64 = 0.25;

/// Which, and whether to write down what is found.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only kinds of operations with this in their name. Nothing is written.
    #[arg(long)]
    only: Option<String>,
}

/// One measurement: what it is of, what it took, and its price, in milliseconds.
struct Measured {
    of: String,
    took: f64,
    priced: f64,
}

impl Measured {
    /// How often the price fits into the time; 1 where both are nothing.
    fn ratio(&self) -> f64 {
        self.took.max(NOTHING) / self.priced.max(NOTHING)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let record = Record::begin("Prices of operations", "cargo xtask prices")?;
    let mut example = cargo(&["run", "--release", "--workspace", "--example", "prices", "--"]);
    example.args(&arguments.only);
    let table = table(&output(&mut example)?)?;
    if arguments.only.is_some() {
        println!("\n{table}");
        return Ok(());
    }
    record.write(&table)
}

/// The table of what the example printed.
fn table(lines: &str) -> Outcome<String> {
    let mut kinds: BTreeMap<&str, Vec<Measured>> = BTreeMap::new();
    for line in lines.lines() {
        let [kind, dtype, layout, took, priced] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
        let of = if layout == "turned" { format!("{dtype}, turned") } else { dtype.to_owned() };
        kinds.entry(kind).or_default().push(Measured { of, took: took.parse()?, priced: priced.parse()? });
    }
    let ratios = || kinds.values().flatten().map(Measured::ratio);
    let far = ratios().filter(|ratio| !(1.0 / NEAR..=NEAR).contains(ratio)).count();
    let mut text = format!(
        "Some two million elements on one thread, the least of five times, beside the price at 20 G operations a second. {far} of \
         {} measurements are further than a factor of {NEAR} from their price: a view is priced at the copy that some layouts need.\n\n\
         | operation | takes, ms | price, ms | times its price: least | of | most | of |\n| --- | --- | --- | --- | --- | --- | --- |\n",
        ratios().count(),
    );
    for (kind, measured) in &kinds {
        let by_ratio = |a: &&Measured, b: &&Measured| a.ratio().total_cmp(&b.ratio());
        let ends = (measured.iter().min_by(by_ratio), measured.iter().max_by(by_ratio));
        let (Some(first), (Some(least), Some(most))) = (measured.first(), ends) else { continue };
        writeln!(
            text,
            "| `{kind}` | {:.2} | {:.2} | {:.2} | {} | {:.2} | {} |",
            first.took,
            first.priced,
            least.ratio(),
            least.of,
            most.ratio(),
            most.of
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn the_farthest_of_each_kind_is_told() {
        let lines =
            "add\tf32\tin order\t1.0\t0.5\nadd\tf16\tturned\t9.0\t1.0\nview\tf32\tin order\t0.001\t0.0\n";
        let text = table(lines).unwrap();
        assert!(text.contains("1 of 3 measurements"), "{text}");
        assert!(text.contains("| `add` | 1.00 | 0.50 | 2.00 | f32 | 9.00 | f16, turned |"), "{text}");
        assert!(text.contains("| `view` | 0.00 | 0.00 | 1.00 | f32 | 1.00 | f32 |"), "{text}");
    }
}
