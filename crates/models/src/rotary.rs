//! Rotary positions: the tables of inverse frequencies, and the scalings that families apply to them.
//!
//! The pair (i, i + rotated / 2) of a head at position p is turned by the angle p · f(i). Angles are rounded to `f32`
//! where transformers rounds them, so that long positions agree too.

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
