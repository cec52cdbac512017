//! Whether what a service holds stays the same: resident memory without the caches that it tells of itself, and threads.

use super::watch::Sample;

/// The part of the run at its beginning in which caches fill and threads come: nothing is held to it.
const FILLING: f64 = 0.25;
/// Memory may grow by so many MB an hour, where it is sure to twice the line's own error that it does.
const MB_AN_HOUR: f64 = 8.0;
/// And the median of the last third may lie so much above that of the third before: a part of that, and MB.
const MORE: (f64, f64) = (0.02, 4.0);
/// Fewer minutes give no line.
const FEW_MINUTES: usize = 10;

/// Threads that there may be: those that wait for the store and files, of which there are 32 at most, those of the store itself, and
/// some for each core.
fn most_threads(cores: u64) -> u64 {
    32 + 16 + 4 * cores
}

pub(super) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// What was seen after the caches were full.
pub(super) struct Flatness {
    /// Medians of the second and the last third of the whole run, in MB.
    thirds: (f64, f64),
    /// MB an hour that memory grows by, and the error of that; none, where there are too few minutes.
    slope: Option<(f64, f64)>,
    threads: u64,
    most_threads: u64,
}

impl Flatness {
    pub fn of(samples: &[Sample], cores: u64) -> Flatness {
        let end = samples.last().map_or(0.0, |sample| sample.seconds);
        let held = |from: f64, to: f64| -> Vec<f64> {
            let within = samples.iter().filter(|sample| (from..to).contains(&sample.seconds));
            within.map(|sample| megabytes(sample.resident.saturating_sub(sample.caches))).collect()
        };
        // One point for each minute: what follows within seconds is no measurement of its own.
        let mut points = Vec::new();
        let mut from = FILLING * end;
        while from + 60.0 <= end + 1.0 {
            points.push(((from + 30.0) / 3600.0, median(held(from, from + 60.0))));
            from += 60.0;
        }
        Flatness {
            thirds: (median(held(end / 3.0, end * 2.0 / 3.0)), median(held(end * 2.0 / 3.0, f64::INFINITY))),
            slope: (points.len() >= FEW_MINUTES).then(|| line(&points)),
            threads: samples.iter().map(|sample| sample.threads).max().unwrap_or(0),
            most_threads: most_threads(cores),
        }
    }

    pub fn text(&self) -> String {
        let slope = match self.slope {
            Some((slope, error)) => format!(
                "its slope after the first quarter, in which caches fill, is {slope:.1} MB an hour, give or take {error:.1} (least squares over the\n\
                 minutes' medians; one of {MB_AN_HOUR} and twice that error, {:.1}, is a failure).",
                MB_AN_HOUR + 2.0 * error
            ),
            None => "the run is too short for a slope.".to_owned(),
        };
        format!(
            "Resident memory without the caches of prefixes, which have a bound of their own: {:.1} MB at the median of the second third,\n\
             {:.1} MB of the last ({:.1} MB would be a failure); {slope}\n\
             Threads: {} at most, of {} that there may be.\n",
            self.thirds.0,
            self.thirds.1,
            self.allowed(),
            self.threads,
            self.most_threads,
        )
    }

    fn allowed(&self) -> f64 {
        self.thirds.0 * (1.0 + MORE.0) + MORE.1
    }

    /// What is not flat.
    pub fn fault(&self) -> Option<String> {
        if let Some((slope, error)) = self.slope
            && slope > MB_AN_HOUR + 2.0 * error
        {
            return Some(format!(
                "memory is not flat: it grows by {slope:.1} MB an hour, give or take {error:.1}"
            ));
        }
        if self.thirds.1.is_nan() || self.thirds.1 > self.allowed() {
            return Some(format!(
                "memory is not flat: {:.1} MB, then {:.1} MB",
                self.thirds.0, self.thirds.1
            ));
        }
        (self.threads > self.most_threads)
            .then(|| format!("{} threads, of {} that there may be", self.threads, self.most_threads))
    }
}

/// Of nothing: no number.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The slope of the line through points that has the least squares, and its standard error.
fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    let (x, y) = (x / count, y / count);
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread;
    let left: f64 = points.iter().map(|point| (point.1 - y - slope * (point.0 - x)).powi(2)).sum();
    (slope, (left / (count - 2.0) / spread).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour with memory that goes up and down by 15 MB, grows by so many MB an hour, and has a cache that fills.
    fn hour(grows: f64, threads: u64) -> Vec<Sample> {
        (0..720)
            .map(|number| {
                let seconds = f64::from(number) * 5.0;
                let caches = (seconds * 5e3) as u64;
                let noise = f64::from(number * 7919 % 31) - 15.0;
                let resident = ((200.0 + noise + grows * seconds / 3600.0) * 1e6) as u64 + caches;
                Sample { seconds, resident, caches, threads, files: 40, done: 0 }
            })
            .collect()
    }

    #[test]
    fn what_grows_is_told_from_what_goes_up_and_down() {
        assert_eq!(Flatness::of(&hour(0.0, 50), 2).fault(), None);
        assert_eq!(Flatness::of(&hour(-30.0, 50), 2).fault(), None);
        let (slope, error) = Flatness::of(&hour(20.0, 50), 2).slope.unwrap();
        assert!((slope - 20.0).abs() < 2.0 && error < 2.0, "{slope} {error}");
        assert!(Flatness::of(&hour(20.0, 50), 2).fault().unwrap().contains("MB an hour"));
        assert!(Flatness::of(&hour(0.0, 86), 2).fault().unwrap().contains("86 threads"));
        // Ten minutes have no line that means anything; they have medians.
        let short: Vec<Sample> =
            hour(200.0, 50).into_iter().filter(|sample| sample.seconds < 600.0).collect();
        let told = Flatness::of(&short, 2);
        assert!(told.slope.is_none() && told.fault().unwrap().contains("MB, then"), "{:?}", told.thirds);
        assert!(Flatness::of(&[], 2).fault().is_some());
    }
}
