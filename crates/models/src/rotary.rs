//! Rotary positions: the tables of inverse frequencies, and the scalings that families apply to them.
//!
//! The pair (i, i + rotated / 2) of a head at position p is turned by the angle p · f(i). Angles are rounded to `f32`
//! where transformers rounds them, so that long positions agree too.

use crate::config::{ConfigError, Reader};

/// One rotary table.
#[derive(Clone, Debug, PartialEq)]
pub struct RotaryTable {
    /// f: one frequency for each pair, in radians per position. Twice as many dimensions of each head are rotated, the
    /// first ones; the others pass.
    pub inverse_frequencies: Vec<f32>,
    /// Multiplies cosine and sine.
    pub scale: f32,
}

impl RotaryTable {
    /// A table from the parameters that a configuration gives (`rope_parameters`, or of old `rope_scaling`), with the
    /// base `theta` and the rotated `fraction` of a head where they do not say so themselves; `positions` are those
    /// the model was trained on.
    ///
    /// # Errors
    /// Where a scaling is not known, or a number makes no sense.
    pub fn read(
        parameters: Option<Reader<'_>>,
        theta: f64,
        fraction: f64,
        head_size: usize,
        positions: usize,
    ) -> Result<Self, ConfigError> {
        let empty = serde_json::Value::Null;
        let reader = parameters.unwrap_or(Reader::new(&empty));
        let theta = reader.optional_float("rope_theta")?.unwrap_or(theta);
        let fraction = reader.optional_float("partial_rotary_factor")?.unwrap_or(fraction);
        let rotated = (head_size as f64 * fraction) as usize;
        if theta <= 0.0 || !(0.0..=1.0).contains(&fraction) || rotated == 0 || !rotated.is_multiple_of(2) {
            return Err(ConfigError::Invalid {
                key: "rotary positions".into(),
                found: format!("base {theta}, {rotated} dimensions of {head_size}"),
                needed: "a base above 0, and an even number of dimensions from 2 on".into(),
            });
        }
        // In f32 throughout, as transformers computes them.
        let frequency = |pair: usize| {
            let exponent = (2 * pair) as f32 / rotated as f32;
            1.0 / f64::from(theta as f32).powf(f64::from(exponent)) as f32
        };
        let mut inverse_frequencies: Vec<f32> = (0..rotated / 2).map(frequency).collect();
        match reader.text_or("rope_type", reader.text_or("type", "default")?)? {
            "default" => {}
            "linear" => {
                let factor = positive(&reader, "factor")?;
                inverse_frequencies.iter_mut().for_each(|frequency| *frequency /= factor);
            }
            "llama3" => {
                let scaling = Llama3 {
                    factor: positive(&reader, "factor")?,
                    low: positive(&reader, "low_freq_factor")?,
                    high: positive(&reader, "high_freq_factor")?,
                    positions: reader.size_or("original_max_position_embeddings", positions)? as f32,
                };
                if scaling.high <= scaling.low {
                    return Err(reader.invalid("high_freq_factor", "a number above `low_freq_factor`"));
                }
                inverse_frequencies.iter_mut().for_each(|frequency| *frequency = scaling.of(*frequency));
            }
            other => {
                return Err(ConfigError::Unsupported {
                    key: "rope_type".into(),
                    found: format!("`{}`", other.chars().take(50).collect::<String>()),
                    hint: "supported are default, linear, llama3".into(),
                });
            }
        }
        Ok(Self { inverse_frequencies, scale: 1.0 })
    }

    /// The dimensions of each head that are rotated.
    #[must_use]
    pub fn rotated(&self) -> usize {
        2 * self.inverse_frequencies.len()
    }

    /// Cosine and sine of a position's angles, one for each pair.
    ///
    /// # Panics
    /// Where `cosines` or `sines` have not one place for each pair.
    pub fn angles(&self, position: i64, cosines: &mut [f32], sines: &mut [f32]) {
        assert!(
            cosines.len() == self.inverse_frequencies.len() && sines.len() == cosines.len(),
            "one for each pair"
        );
        for ((frequency, cosine), sine) in self.inverse_frequencies.iter().zip(cosines).zip(sines) {
            let angle = f64::from(position as f32 * frequency);
            *cosine = angle.cos() as f32 * self.scale;
            *sine = angle.sin() as f32 * self.scale;
        }
    }
}

fn positive(reader: &Reader<'_>, key: &str) -> Result<f32, ConfigError> {
    reader.nullable_positive(key, None)?.ok_or_else(|| reader.invalid(key, "a number above 0"))
}

/// Llama 3's scaling: short wavelengths stay, long ones are stretched, those between are blended.
struct Llama3 {
    factor: f32,
    low: f32,
    high: f32,
    positions: f32,
}

impl Llama3 {
    fn of(&self, frequency: f32) -> f32 {
        let wavelength = 2.0 * std::f32::consts::PI / frequency;
        if wavelength < self.positions / self.high {
            frequency
        } else if wavelength > self.positions / self.low {
            frequency / self.factor
        } else {
            let kept = (self.positions / wavelength - self.low) / (self.high - self.low);
            (1.0 - kept) * frequency / self.factor + kept * frequency
        }
    }
}
