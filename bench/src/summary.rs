//! Figures of one measurement as people and machines read them.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::verify::Verdict;

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p95_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

impl Latency {
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        Self {
            p50_us: micros(histogram.value_at_quantile(0.50)),
            p95_us: micros(histogram.value_at_quantile(0.95)),
            p99_us: micros(histogram.value_at_quantile(0.99)),
            max_us: micros(histogram.max()),
        }
    }
}

/// The result of `chronik-bench` without a subcommand; the form of its `--json`.
#[derive(Debug, Serialize)]
pub struct LoadSummary {
    pub version: u32,
    pub topic: String,
    pub concurrency: u32,
    pub acks: i16,
    pub size: usize,
    pub acknowledged: u64,
    pub seconds: f64,
    pub per_second: f64,
    #[serde(flatten)]
    pub latency: Latency,
    pub errors: BTreeMap<String, u64>,
    pub verify: Option<Verdict>,
}

impl LoadSummary {
    pub fn print(&self) {
        println!(
            "{} acknowledged in {:.2} s: {:.0}/s ({} connections, {} B, acks={})",
            self.acknowledged, self.seconds, self.per_second, self.concurrency, self.size, self.acks
        );
        let Latency { p50_us, p95_us, p99_us, max_us } = self.latency;
        println!(
            "latency p50 {}  p95 {}  p99 {}  max {}",
            human(p50_us),
            human(p95_us),
            human(p99_us),
            human(max_us)
        );
        if self.errors.is_empty() {
            println!("errors 0");
        }
        for (what, count) in &self.errors {
            println!("errors {count:>8}  {what}");
        }
        if let Some(verdict) = &self.verify {
            println!(
                "verify: {} read, {} lost, {} doubled, {} stored without acknowledgement",
                verdict.read, verdict.lost, verdict.doubled, verdict.stored_unacknowledged
            );
            for example in &verdict.examples {
                println!("  {example}");
            }
        }
    }
}

/// Microseconds with a fitting unit.
pub fn human(micros: f64) -> String {
    if micros < 1000.0 {
        format!("{micros:.0} us")
    } else if micros < 1_000_000.0 {
        format!("{:.2} ms", micros / 1000.0)
    } else {
        format!("{:.2} s", micros / 1_000_000.0)
    }
}

/// `90s`, `30m`, `24h`, `250ms`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        other => return Err(format!("unknown unit {other:?}; use ms, s, m, h or d")),
    };
    let number: f64 = digits.parse().map_err(|_| format!("{text:?} is not a duration; try 30s or 24h"))?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("7"), Ok(Duration::from_secs(7)));
        assert!(parse_duration("5 weeks").is_err());
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("").is_err());
    }

    #[test]
    fn latencies_carry_a_fitting_unit() {
        assert_eq!(human(131.4), "131 us");
        assert_eq!(human(2_500.0), "2.50 ms");
        assert_eq!(human(3_000_000.0), "3.00 s");
    }
}
