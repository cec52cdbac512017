//! The equations of `einsum`: `bij, bjk -> bik`.

use crate::limits;
use crate::rules::{RuleError, broadcast, shape_text};
use crate::shape::{Dimension, Symbol};

/// One dimension, or an ellipsis, of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscript {
    /// A letter.
    Letter(u8),
    /// `...`: as many dimensions as the letters leave.
    Ellipsis,
}

/// An equation, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equation {
    /// The subscripts of each operand.
    pub operands: Vec<Vec<Subscript>>,
    /// The subscripts of the result, written or implied: the ellipsis, then the letters that stand once, in order.
    pub output: Vec<Subscript>,
}

/// An equation together with shapes: every dimension has a label, a number from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The labels of each operand's dimensions. A label that stands twice in one operand means its diagonal.
    pub operands: Vec<Vec<usize>>,
    /// The labels of the result's dimensions.
    pub output: Vec<usize>,
    /// The size of each label. An operand's own dimension may be 1 where this is not: it is repeated.
    pub sizes: Vec<Dimension>,
}

/// One step of the sum, operand by operand from the left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The labels of what there was and of the next operand: the product runs over these.
    pub labels: Vec<usize>,
    /// The labels that the result or a later operand still needs; the others are summed.
    pub kept: Vec<usize>,
}

fn wrong(equation: &str, text: impl std::fmt::Display) -> RuleError {
    RuleError::new(format!("`einsum` cannot read the equation {equation:?}: {text}")).hint(
        "one letter for each dimension, operands apart by commas, the result after `->`: \"bij,bjk->bik\"",
    )
}

fn subscripts(equation: &str, text: &str) -> Result<Vec<Subscript>, RuleError> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("...") {
            if found.contains(&Subscript::Ellipsis) {
                return Err(wrong(equation, format!("{:?} has two ellipses", text.trim())));
            }
            found.push(Subscript::Ellipsis);
            rest = after.trim_start();
            continue;
        }
        match u8::try_from(first) {
            Ok(letter) if letter.is_ascii_alphabetic() => found.push(Subscript::Letter(letter)),
            _ => return Err(wrong(equation, format!("{first:?} is no letter"))),
        }
        rest = rest[first.len_utf8()..].trim_start();
    }
    Ok(found)
}

impl Equation {
    /// Reads an equation. Spaces mean nothing.
    pub fn parse(equation: &str) -> Result<Equation, RuleError> {
        if equation.len() > limits::TEXT_BYTES {
            let (length, most) = (equation.len(), limits::TEXT_BYTES);
            return Err(RuleError::new(format!(
                "`einsum` has an equation of {length} bytes, and {most} is the most"
            )));
        }
        let (inputs, output) = match equation.split_once("->") {
            Some((inputs, output)) => (inputs, Some(output)),
            None => (equation, None),
        };
        let operands: Vec<_> =
            inputs.split(',').map(|text| subscripts(equation, text)).collect::<Result<_, _>>()?;
        let letters: Vec<u8> = operands.iter().flatten().filter_map(letter).collect();
        let output = match output {
            Some(text) => subscripts(equation, text)?,
            None => {
                let mut output = Vec::new();
                if operands.iter().flatten().any(|subscript| *subscript == Subscript::Ellipsis) {
                    output.push(Subscript::Ellipsis);
                }
                let once = |&letter: &u8| letters.iter().filter(|&&other| other == letter).count() == 1;
                let mut single: Vec<u8> = letters.iter().copied().filter(once).collect();
                single.sort_unstable();
                output.extend(single.into_iter().map(Subscript::Letter));
                output
            }
        };
        for (place, subscript) in output.iter().enumerate() {
            let Subscript::Letter(letter) = subscript else { continue };
            let name = char::from(*letter);
            if !letters.contains(letter) {
                return Err(wrong(equation, format!("the result has {name:?}, which no operand has")));
            }
            if output[..place].contains(subscript) {
                return Err(wrong(equation, format!("the result has {name:?} twice")));
            }
        }
        Ok(Equation { operands, output })
    }

    /// Gives every dimension of these shapes its label, and every label its size.
    pub fn bind(
        &self,
        shapes: &[&[Dimension]],
        fresh: &mut dyn FnMut() -> Symbol,
    ) -> Result<Bound, RuleError> {
        if shapes.len() != self.operands.len() {
            return Err(RuleError::new(format!(
                "`einsum` has {} operands in its equation and {} tensors",
                self.operands.len(),
                shapes.len()
            )));
        }
        // The ellipses' dimensions are aligned at their last; they take the first labels.
        let mut hidden = 0;
        for (place, (subscripts, shape)) in self.operands.iter().zip(shapes).enumerate() {
            let letters = subscripts.iter().filter_map(letter).count();
            let ellipsis = subscripts.contains(&Subscript::Ellipsis);
            if letters > shape.len() || (!ellipsis && letters < shape.len()) {
                return Err(RuleError::new(format!(
                    "`einsum` has {letters} letters for its operand {place}, which has {} dimensions: {}",
                    shape.len(),
                    shape_text(shape)
                ))
                .hint("`...` stands for the dimensions that have no letter"));
            }
            if ellipsis {
                hidden = hidden.max(shape.len() - letters);
            }
        }
        let mut labels: Vec<Option<u8>> = vec![None; hidden];
        let mut sizes: Vec<Dimension> = vec![Dimension::known(1); hidden];
        let mut operands = Vec::new();
        for (place, (subscripts, shape)) in self.operands.iter().zip(shapes).enumerate() {
            let mut own: Vec<usize> = Vec::new();
            let covered = shape.len() - subscripts.iter().filter_map(letter).count();
            for subscript in subscripts {
                match subscript {
                    Subscript::Ellipsis => own.extend(hidden - covered..hidden),
                    Subscript::Letter(name) => {
                        let known = labels.iter().position(|label| *label == Some(*name));
                        own.push(known.unwrap_or(labels.len()));
                        if known.is_none() {
                            labels.push(Some(*name));
                            sizes.push(Dimension::known(1));
                        }
                    }
                }
            }
            for (axis, &label) in own.iter().enumerate() {
                let name =
                    labels[label].map_or_else(|| "...".to_owned(), |name| char::from(name).to_string());
                let size = &shape[axis];
                if let Some(twin) = own[..axis].iter().position(|other| *other == label)
                    && !shape[twin].could_equal(size)
                {
                    return Err(RuleError::new(format!(
                        "`einsum` takes the diagonal {name} of operand {place}, but its sizes {} and {size} differ: {}",
                        shape[twin],
                        shape_text(shape)
                    )));
                }
                let together = broadcast::dimension(&sizes[label], size, fresh).ok_or_else(|| {
                    RuleError::new(format!(
                        "`einsum` has size {} for {name}, and size {size} in operand {place}: {}",
                        sizes[label],
                        shape_text(shape)
                    ))
                })?;
                sizes[label] = together;
            }
            operands.push(own);
        }
        let mut output = Vec::new();
        for subscript in &self.output {
            match subscript {
                Subscript::Ellipsis => output.extend(0..hidden),
                Subscript::Letter(name) => {
                    output.extend(labels.iter().position(|label| *label == Some(*name)))
                }
            }
        }
        Ok(Bound { operands, output, sizes })
    }
}

fn letter(subscript: &Subscript) -> Option<u8> {
    match subscript {
        Subscript::Letter(letter) => Some(*letter),
        Subscript::Ellipsis => None,
    }
}

impl Bound {
    /// The sum operand by operand from the left, each label summed as soon as nothing later needs it.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        let mut needed_until = vec![0; self.sizes.len()];
        for (place, labels) in self.operands.iter().enumerate() {
            labels.iter().for_each(|&label| needed_until[label] = place);
        }
        self.output.iter().for_each(|&label| needed_until[label] = usize::MAX);
        for (place, operand) in self.operands.iter().enumerate() {
            let mut labels = steps.last().map_or_else(Vec::new, |step| step.kept.clone());
            for &label in operand {
                if !labels.contains(&label) {
                    labels.push(label);
                }
            }
            let kept = labels.iter().copied().filter(|&label| needed_until[label] > place).collect();
            steps.push(Step { labels, kept });
        }
        steps
    }
}
