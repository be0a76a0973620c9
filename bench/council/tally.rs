//! What was measured, and how it is shown: a table for people and JSON for programs. Times are
//! nanoseconds while they are collected and microseconds where they are shown.

use std::iter;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::usage::Usage;

/// All that was measured on one path at one level.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// From sending the request to a member's first text.
    pub(crate) first_text: Vec<u64>,
    /// From sending a member's first text to its arrival.
    pub(crate) first_transit: Vec<u64>,
    /// The same for every text.
    pub(crate) transit: Vec<u64>,
    /// By how much two texts of a member came closer together or farther apart on the way.
    pub(crate) gap: Vec<u64>,
    /// Texts that came in one event with the one before.
    pub(crate) merged: usize,
    /// What was missing, too much or out of order.
    pub(crate) faults: Vec<String>,
    /// Who used the processors meanwhile.
    pub(crate) usage: Usage,
}

impl Tally {
    /// Adds what was measured elsewhere.
    pub(crate) fn add(&mut self, other: Self) {
        self.first_text.extend(other.first_text);
        self.first_transit.extend(other.first_transit);
        self.transit.extend(other.transit);
        self.gap.extend(other.gap);
        self.merged += other.merged;
        self.faults.extend(other.faults);
        self.usage.add(other.usage);
    }

    /// In the order of the table.
    fn times(&mut self) -> [&mut Vec<u64>; 4] {
        [&mut self.first_text, &mut self.first_transit, &mut self.transit, &mut self.gap]
    }
}

/// What there is to say about one path at one level.
#[derive(Debug)]
pub(crate) struct Summary {
    /// p50 and p99 in microseconds of each of [`TIMES`], one after another.
    times: Vec<f64>,
    firsts: usize,
    texts: usize,
    merged: usize,
    usage: Usage,
    faults: Vec<String>,
}

/// The names of the four times in JSON.
const TIMES: [&str; 4] = ["first_text", "first_transit", "transit", "gap"];

impl From<Tally> for Summary {
    fn from(mut tally: Tally) -> Self {
        let both = |times: &mut Vec<u64>| {
            times.sort_unstable();
            let micros = |nanos| Duration::from_nanos(nanos).as_secs_f64() * 1e6;
            [50, 99].map(|percent| micros(percentile(times, percent)))
        };
        let times = tally.times().into_iter().flat_map(both).collect();
        Self {
            times,
            firsts: tally.first_text.len(),
            texts: tally.transit.len(),
            merged: tally.merged,
            usage: tally.usage,
            faults: tally.faults,
        }
    }
}

impl Summary {
    fn row(&self, streams: u32, path: &str) -> String {
        let shown = |number: Option<f64>, digits: usize| {
            number.map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
        };
        let clean = if self.faults.is_empty() { "yes" } else { "NO" };
        let rest = [
            self.firsts.to_string(),
            self.texts.to_string(),
            self.merged.to_string(),
            clean.to_owned(),
            shown(self.cpu(), 2),
            shown(self.cpu_each(), 2),
            shown(self.usage.others(), 0),
        ];
        row(&streams.to_string(), path, micros(&self.times).chain(rest))
    }

    /// Seconds of the gateway.
    fn cpu(&self) -> Option<f64> {
        self.usage.gateway.map(|cpu| cpu.as_secs_f64())
    }

    /// Microseconds of the gateway for one text.
    fn cpu_each(&self) -> Option<f64> {
        let texts = u32::try_from(self.texts).ok().filter(|texts| *texts > 0)?;
        Some(self.cpu()? * 1e6 / f64::from(texts))
    }

    fn json(&self) -> Value {
        let mut said = by_name(&self.times);
        said.insert("firsts".to_owned(), self.firsts.into());
        said.insert("texts".to_owned(), self.texts.into());
        said.insert("merged".to_owned(), self.merged.into());
        said.insert("clean".to_owned(), self.faults.is_empty().into());
        said.insert("cpu_s".to_owned(), self.cpu().into());
        said.insert("cpu_us_each".to_owned(), self.cpu_each().into());
        said.insert("other_cpu_percent".to_owned(), self.usage.others().into());
        Value::Object(said)
    }
}

/// Both paths at one level.
#[derive(Debug)]
pub(crate) struct Level {
    /// Client streams at a time.
    pub(crate) streams: u32,
    /// Straight to the upstream.
    pub(crate) direct: Summary,
    /// Through the gateway, if there is one.
    pub(crate) gateway: Option<Summary>,
}

impl Level {
    /// Whether everything came as it should.
    pub(crate) fn clean(&self) -> bool {
        self.faults().is_empty()
    }

    /// The first of what went wrong on each path.
    pub(crate) fn faults(&self) -> Vec<String> {
        let paths = iter::once(("direct", &self.direct))
            .chain(self.gateway.iter().map(|gateway| ("gateway", gateway)));
        let first = |(path, summary): (&str, &Summary)| {
            let all = summary.faults.len();
            let first = summary.faults.first()?;
            Some(format!("{path}: {first} (one of {all} faults)"))
        };
        paths.filter_map(first).collect()
    }

    /// Its rows of the table.
    pub(crate) fn rows(&self) -> Vec<String> {
        let mut rows = vec![self.direct.row(self.streams, "direct")];
        if let Some(gateway) = &self.gateway {
            let ratios = self.compare(gateway, ratio);
            rows.push(gateway.row(self.streams, "gateway"));
            rows.push(row("", "added", micros(&self.compare(gateway, |a, b| b - a))));
            rows.push(row("", "ratio", ratios.iter().map(|ratio| format!("{ratio:.2}"))));
        }
        rows
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        let compared = |how: fn(f64, f64) -> f64| {
            self.gateway.as_ref().map(|gateway| by_name(&self.compare(gateway, how)))
        };
        json!({
            "streams": self.streams,
            "direct": self.direct.json(),
            "gateway": self.gateway.as_ref().map(Summary::json),
            "added": compared(|direct, gateway| gateway - direct),
            "ratio": compared(ratio),
        })
    }

    fn compare(&self, gateway: &Summary, how: impl Fn(f64, f64) -> f64) -> Vec<f64> {
        let pairs = self.direct.times.iter().zip(&gateway.times);
        pairs.map(|(direct, gateway)| how(*direct, *gateway)).collect()
    }
}

/// The first two lines of the table.
pub(crate) fn heading() -> [String; 2] {
    let names = ["first text us", "", "first transit us", "", "transit us", "", "gap us", ""];
    let rest = ["firsts", "texts", "merged", "clean", "gateway", "CPU us", "other"];
    let below = ["", "", "", "", "CPU s", "each", "CPU %"];
    let both = ["p50", "p99"].into_iter().cycle().take(8);
    [
        row("streams", "path", names.into_iter().chain(rest).map(str::to_owned)),
        row("", "", both.chain(below).map(str::to_owned)),
    ]
}

fn row(streams: &str, path: &str, columns: impl Iterator<Item = String>) -> String {
    let widths = [13, 9, 17, 9, 11, 9, 9, 9, 8, 8, 7, 6, 8, 7, 6];
    let columns = columns.zip(widths).map(|(column, width)| format!("{column:>width$}"));
    format!("{streams:>7} {path:<8}{}", columns.collect::<String>())
}

fn micros(times: &[f64]) -> impl Iterator<Item = String> {
    times.iter().map(|time| format!("{time:.0}"))
}

fn by_name(numbers: &[f64]) -> Map<String, Value> {
    let both = |pair: &[f64]| json!({ "p50": pair.first(), "p99": pair.last() });
    TIMES.iter().map(|name| (*name).to_owned()).zip(numbers.chunks(2).map(both)).collect()
}

fn ratio(direct: f64, gateway: f64) -> f64 {
    gateway / direct
}

/// Of what is sorted, the least that so many of a hundred do not exceed.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let times: Vec<_> = (1..=200).collect();
        assert_eq!([50, 99].map(|percent| percentile(&times, percent)), [100, 198]);
        assert_eq!(percentile(&[7], 99), 7);
        assert_eq!(percentile(&[], 50), 0);
    }
}
